# A worker of one framework: --build-arg FRAMEWORK=timm, huggingface or ultralytics (AGPL-3.0,
# see NOTICE).
# torch brings CUDA with it; a GPU host needs the driver and NVIDIA's container toolkit.
FROM python:3.11-slim-bookworm
ARG FRAMEWORK=timm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The same number in every image: they share folders.
RUN useradd --uid 10001 --create-home modelyard \
    && install --directory --owner=modelyard --group=modelyard \
        /srv/modelyard /srv/modelyard/home /srv/modelyard/home/gpus /srv/modelyard/home/cache \
        /srv/modelyard/uploads /srv/modelyard/outputs /srv/modelyard/weights
WORKDIR /app
COPY requirements/ requirements/
RUN pip install --no-cache-dir \
    --requirement requirements/worker.txt --requirement requirements/s3.txt \
    --requirement "requirements/${FRAMEWORK}.txt"
COPY pyproject.toml README.md LICENSE NOTICE celeryconfig.py ./
COPY adapters/ adapters/
COPY modelyard/ modelyard/
COPY workers/ workers/
RUN pip install --no-cache-dir --no-deps .
WORKDIR /srv/modelyard
USER 10001
ENV MODELYARD_HOME=/srv/modelyard/home \
    MODELYARD_UPLOADS=/srv/modelyard/uploads \
    MODELYARD_OUTPUTS=/srv/modelyard/outputs \
    MODELYARD_WEIGHTS=/srv/modelyard/weights \
    MODELYARD_FRAMEWORKS=${FRAMEWORK}
# The worker writes checkpoints and hands its jobs back before it ends.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=10s --start-period=60s --retries=3 \
    CMD ["modelyard", "health", "worker"]
CMD ["modelyard", "worker"]
