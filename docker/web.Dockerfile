# Web process, recorder, Flower and release; compose gives each its command and health check.
FROM python:3.11-slim-bookworm
ENV PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# The same number in every image: they share folders.
RUN useradd --uid 10001 --create-home modelyard \
    && install --directory --owner=modelyard --group=modelyard \
        /srv/modelyard /srv/modelyard/home /srv/modelyard/uploads /srv/modelyard/outputs /srv/modelyard/weights
WORKDIR /app
COPY requirements/ requirements/
RUN pip install --no-cache-dir \
    --requirement requirements/web.txt --requirement requirements/s3.txt
COPY pyproject.toml README.md LICENSE NOTICE celeryconfig.py ./
COPY adapters/ adapters/
COPY modelyard/ modelyard/
COPY workers/ workers/
COPY webapp/ webapp/
RUN pip install --no-cache-dir --no-deps .
# Not in /app, whose folders would hide what is installed.
WORKDIR /srv/modelyard
USER 10001
ENV MODELYARD_HOME=/srv/modelyard/home \
    MODELYARD_UPLOADS=/srv/modelyard/uploads \
    MODELYARD_OUTPUTS=/srv/modelyard/outputs \
    MODELYARD_WEIGHTS=/srv/modelyard/weights \
    MODELYARD_HOST=0.0.0.0
EXPOSE 8808
HEALTHCHECK --interval=15s --timeout=10s --start-period=30s --retries=3 \
    CMD ["modelyard", "health", "web"]
CMD ["modelyard", "web"]
