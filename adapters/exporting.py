"""Export of a trained model to ONNX and TorchScript, held to the original before it is kept.

Works on any framework's :class:`adapters.prediction.Network`. What is exported is made in memory,
compared with the original on batches of two sizes, and only then written, whole, with all that
its user needs inside: classes, preprocessing, and which job it is of.
"""

from __future__ import annotations

import io
import json
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from adapters.contract import ErrorKind, TrainingError, TrainingJob
from adapters.files import write_atomically
from adapters.prediction import Network, Predictor
from adapters.wire import ExportFormat
from modelyard import __version__

logger = logging.getLogger(__name__)

OPSET = 18
TOLERANCE = 1e-4
FOLDER = "exports"
METADATA_NAME = "modelyard.json"  # of the extra file in a TorchScript archive
_SUFFIXES = {ExportFormat.ONNX: "onnx", ExportFormat.TORCHSCRIPT: "torchscript"}

Runs = Callable[[torch.Tensor], Sequence[Any]]  # a batch to the outputs of an exported model


@dataclass(frozen=True)
class Exported:
    """A file that was exported and compared with the original."""

    path: Path
    differences: Mapping[str, float]  # the largest of each output

    @property
    def largest_difference(self) -> float:
        return max(self.differences.values())


class Differs(Exception):
    """An exported model does not say what the original says; the text says by how much."""


def export(job: TrainingJob, predictor: Predictor, format: ExportFormat) -> Exported:
    """Write a job's model below its output folder in another form.

    Raises TrainingError where it cannot be exported, or where what was exported differs from the
    original by more than TOLERANCE (of the largest value of an output, where that is above 1);
    then nothing is written.
    """
    assert job.output_dir is not None
    network = predictor.network()
    module = _Tuple(network).eval()
    metadata = _metadata(job, predictor, network)
    make = _onnx if format == ExportFormat.ONNX else _torchscript
    try:
        with torch.no_grad(), _quietly():
            content, differences = make(module, network, metadata)
    except Differs as error:
        raise TrainingError(
            ErrorKind.UNSUPPORTED,
            f"{job.model_name} as {format} {error}; nothing was kept",
            hint="Try the other format.",
        ) from error
    except Exception as error:  # the exporters raise whatever a model leads them to
        logger.warning("job %s cannot be exported to %s", job.id, format, exc_info=True)
        raise TrainingError(
            ErrorKind.UNSUPPORTED,
            f"{job.model_name} cannot be exported to {format}: {_first_line(error)}",
            hint="Try the other format, or load the checkpoint in the library itself.",
        ) from error
    # Without its parents: the folder of a job that was deleted meanwhile must not come back.
    (job.output_dir / FOLDER).mkdir(exist_ok=True)
    path = job.output_dir / FOLDER / f"{_file_name(job.model_name)}.{_SUFFIXES[format]}"
    write_atomically(path, lambda stream: stream.write(content))
    return Exported(path, differences)


class _Tuple(torch.nn.Module):
    """A model whose tensors come as a tuple, whatever it returns them in."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.module = network.module
        self._names = network.outputs

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        tensors = tuple(_tensors(self.module(images)))
        if len(tensors) < len(self._names):
            raise ValueError(f"it returns {len(tensors)} tensors, not {', '.join(self._names)}")
        return tensors[: len(self._names)]


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _tensors(item)


def _onnx(
    module: _Tuple, network: Network, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, float]]:
    """Export by tracing; where that fails or differs, by torch.export.

    Both gave the same numbers for models of timm, Ultralytics and transformers. Tracing took 0.1
    to 1 s where torch.export took 1.5 to 10 s; but only the latter follows some newer operators.
    """
    try:
        content = _with_metadata(_traced_onnx(module, network), metadata)
        return content, _compare(module, network, _onnx_runs(content))
    except Exception as error:
        logger.info("ONNX by tracing failed, trying torch.export: %s", _first_line(error))
        module.eval()  # a failed export may leave it in training mode
        content = _with_metadata(_exported_onnx(module, network), metadata)
        return content, _compare(module, network, _onnx_runs(content))


def _traced_onnx(module: _Tuple, network: Network) -> bytes:
    names = ("images", *network.outputs)
    stream = io.BytesIO()
    torch.onnx.export(
        module,
        (network.example,),
        stream,  # type: ignore[arg-type]  # a stream is taken, whatever its annotation says
        dynamo=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=list(network.outputs),
        dynamic_axes={name: {0: "batch"} for name in names} if network.dynamic_batch else None,
    )
    return stream.getvalue()


def _exported_onnx(module: _Tuple, network: Network) -> bytes:
    batch = {0: torch.export.Dim.DYNAMIC} if network.dynamic_batch else {}
    program = torch.onnx.export(
        module,
        (network.example,),
        dynamo=True,
        opset_version=OPSET,
        input_names=["images"],
        output_names=list(network.outputs),
        dynamic_shapes=(batch,),
        verbose=False,
    )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


def _with_metadata(content: bytes, metadata: Mapping[str, str]) -> bytes:
    import onnx

    model = onnx.load_from_string(content)
    onnx.helper.set_model_props(model, dict(metadata))
    onnx.checker.check_model(model)
    described: bytes = model.SerializeToString()
    return described


def _onnx_runs(content: bytes) -> Runs:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return lambda images: session.run(None, {"images": images.numpy()})


def _torchscript(
    module: _Tuple, network: Network, metadata: Mapping[str, str]
) -> tuple[bytes, dict[str, float]]:
    traced = torch.jit.trace(  # type: ignore[no-untyped-call]
        module, (network.example,), strict=False, check_trace=False
    )
    stream = io.BytesIO()
    extra = {METADATA_NAME: json.dumps(dict(metadata), ensure_ascii=False)}
    torch.jit.save(traced, stream, _extra_files=extra)
    content = stream.getvalue()
    loaded = torch.jit.load(  # type: ignore[no-untyped-call]
        io.BytesIO(content), map_location="cpu"
    )
    runs: Runs = lambda images: [tensor.numpy() for tensor in loaded(images)]  # noqa: E731
    return content, _compare(module, network, runs)


def _compare(module: _Tuple, network: Network, runs: Runs) -> dict[str, float]:
    """Return the largest difference of each output from the original's. Raises Differs."""
    differences = dict.fromkeys(network.outputs, 0.0)
    for batch in _batches(network):
        outputs = runs(batch)
        for name, expected, given in zip(network.outputs, module(batch), outputs, strict=True):
            differences[name] = max(differences[name], difference(expected.numpy(), given))
    name, largest = max(differences.items(), key=lambda item: item[1])
    if not largest <= TOLERANCE:
        raise Differs(f"differs from the original by {largest:.3g} in '{name}'")
    return differences


def difference(expected: Any, given: Any) -> float:
    """Return the largest difference, in units of the largest expected value where that is above 1.

    Float32 keeps seven digits: a box at pixel 640 can be told to no more than a ten-thousandth.
    """
    given = np.asarray(given)
    if expected.shape != given.shape:
        raise Differs(f"gives an output of shape {given.shape}, not {tuple(expected.shape)}")
    if expected.size == 0:
        return 0.0
    if not np.isfinite(expected).all():
        raise Differs("cannot be compared: the original's output is not finite")
    apart = np.abs(expected.astype(float) - given.astype(float)).max()
    return float(apart / max(1.0, float(np.abs(expected).max())))


def _batches(network: Network) -> Iterator[torch.Tensor]:
    """Yield the example and, where a batch may have another size, one more and other images."""
    example = network.example
    yield example
    if network.dynamic_batch:
        generator = torch.Generator().manual_seed(0)
        noise = torch.rand((1, *example.shape[1:]), generator=generator) * 0.1
        yield torch.cat([example, example[:1] + noise])


def _metadata(job: TrainingJob, predictor: Predictor, network: Network) -> dict[str, str]:
    return {
        "modelyard_version": __version__,
        "job_id": str(job.id),
        "attempt": str(job.attempt),
        "framework": job.framework,
        "model_name": job.model_name,
        "task_type": str(job.task_type),
        "dataset_fingerprint": job.dataset_fingerprint or "",
        "classes": json.dumps(list(predictor.classes), ensure_ascii=False),
        "multi_label": json.dumps(predictor.multi_label),
        "preprocessing": json.dumps(dict(network.preprocessing), ensure_ascii=False),
        "outputs": json.dumps(list(network.outputs)),
    }


def _file_name(model_name: str) -> str:
    """Return a model's name as a file's: a catalog's name may hold slashes."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", model_name).strip(".-") or "model"


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what tracing says of every shape that a model looks at: the comparison decides."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:300] or type(error).__name__
