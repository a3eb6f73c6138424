"""`python -m workers.tools`: answers requests about trained models on standard input and output.

A line is a request or an answer, JSON (adapters.wire.AskKind). Models that were used lately stay
loaded. It computes on the CPU, gives way to training, and has no GPU.
"""

from __future__ import annotations

import base64
import json
import logging
import os
import queue
import sys
import threading
import time
from collections.abc import Mapping
from typing import Any, BinaryIO

import click

from adapters.contract import AdapterError, ErrorKind, TrainingError, TrainingJob
from adapters.data.description import DatasetError
from adapters.images import open_rgb
from adapters.wire import INVALID_IMAGE, MAX_ASKED_IMAGE_BYTES, AskKind, ExportFormat, job_folder
from modelyard.settings import Settings, load_settings
from workers.tool_answers import prediction_to_json
from workers.tool_models import Models

logger = logging.getLogger(__name__)


@click.command()
@click.option("--idle-seconds", type=float, default=600.0)
@click.option("--niceness", type=click.IntRange(0, 19), default=0)
def main(idle_seconds: float, niceness: int) -> None:
    """Answer requests until standard input ends, or none has come for a while."""
    answers = _private_stdout()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # the GPUs are the training children's
    os.nice(niceness)
    settings = load_settings()
    logging.basicConfig(level=settings.log_level.upper(), stream=sys.stderr)
    tools = Tools(settings)
    requests: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests,), name="requests", daemon=True).start()
    while True:
        try:
            line = requests.get(timeout=idle_seconds)
        except queue.Empty:
            return
        answers.write(json.dumps(tools.answer(line), allow_nan=False).encode() + b"\n")
        answers.flush()


class Tools:
    """What is done with trained models."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._models = Models()
        self._prepared = False

    def answer(self, line: bytes) -> dict[str, Any]:
        """Return the answer to a request; what cannot be done is said in it."""
        try:
            request = json.loads(line)
            do = {AskKind.PREDICT: self._predict, AskKind.EXPORT: self._export}
            kind = AskKind(request["kind"])
            job = self._placed(TrainingJob.from_message(request["job"]))
            self._prepare()
            return do[kind](job, request)
        except DatasetError as error:
            return _refusal(INVALID_IMAGE, str(error))
        except TrainingError as error:
            return {"error": error.to_json()}
        except (AdapterError, KeyError, ValueError) as error:
            return _refusal(ErrorKind.UNSUPPORTED, f"the request cannot be read: {error}")
        except Exception as error:  # a library's; the process goes on
            logger.exception("a request failed")
            return _refusal(ErrorKind.FRAMEWORK, f"{type(error).__name__}: {error}"[:500])

    def _predict(self, job: TrainingJob, request: Mapping[str, Any]) -> dict[str, Any]:
        image = open_rgb(_image_bytes(request["image"]))
        threshold = float(request["threshold"])
        predictor = self._models.get(job)
        began = time.perf_counter()
        [prediction] = predictor.predict([image])
        seconds = time.perf_counter() - began
        told = prediction_to_json(
            prediction, job=job, predictor=predictor, image=image, threshold=threshold
        )
        return {"prediction": {**told, "seconds": round(seconds, 4)}}

    def _export(self, job: TrainingJob, request: Mapping[str, Any]) -> dict[str, Any]:
        from adapters.exporting import export
        from workers.supervisor import describe_artifact

        if job.output_dir is None or not job.output_dir.is_dir():
            raise _no_outputs(job)
        exported = export(job, self._models.get(job), ExportFormat(request["format"]))
        artifact = describe_artifact(exported.path, root=job.output_dir)
        if artifact is None:
            raise _no_outputs(job)
        return {
            "artifact": {**artifact, "kind": "export"},
            "largest_difference": exported.largest_difference,
            "differences": dict(exported.differences),
        }

    def _placed(self, job: TrainingJob) -> TrainingJob:
        """Return the job with this host's folders: no path comes with the request."""
        return job.placed(
            output_dir=self._settings.outputs / job_folder(job.id),
            weights_dir=self._settings.weights,
            compute_device="cpu",
        )

    def _prepare(self) -> None:
        if self._prepared:
            return
        import torch

        # Beside training, threads that wait for each other are slower than one.
        torch.set_num_threads(self._settings.threads or 1)
        self._prepared = True


def _image_bytes(text: str) -> bytes:
    if len(text) > 4 * (MAX_ASKED_IMAGE_BYTES + 2) // 3:
        raise DatasetError(f"an image of more than {MAX_ASKED_IMAGE_BYTES // 10**6} MB")
    return base64.b64decode(text, validate=True)


def _no_outputs(job: TrainingJob) -> TrainingError:
    return TrainingError(
        ErrorKind.CHECKPOINT_INVALID,
        f"The folder of job {job.id} is not on this host: {job.output_dir}",
        hint="Was the job deleted? Otherwise set MODELYARD_OUTPUTS to the shared folder.",
    )


def _refusal(kind: str, message: str) -> dict[str, Any]:
    return {"error": {"kind": str(kind), "message": message, "hint": ""}}


def _private_stdout() -> BinaryIO:
    """Return standard output for answers only; what libraries print goes to standard error."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return answers


def _read(requests: queue.SimpleQueue[bytes]) -> None:
    for line in sys.stdin.buffer:
        requests.put(line)
    os._exit(0)  # whoever asked is gone, and so is the need for what is being done


if __name__ == "__main__":
    main()
