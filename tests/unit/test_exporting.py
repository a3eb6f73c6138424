"""An exported model says what the original says, or there is none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from adapters import exporting
from adapters.contract import DatasetFormat, TaskType, TrainingError, TrainingJob
from adapters.exporting import export
from adapters.prediction import Network
from adapters.wire import ExportFormat

OUTPUTS = ("scores", "features")


class Small(torch.nn.Module):
    """Returns a mapping of nested lists, as libraries do."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = torch.nn.Conv2d(3, 4, 3)
        self.head = torch.nn.Linear(4, 2)
        self.dropout = torch.nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> dict[str, Any]:
        features = self.convolution(images).mean((2, 3))
        return {"scores": self.dropout(self.head(features)), "more": [features]}


class Restless(Small):
    """Says something else each time."""

    def forward(self, images: torch.Tensor) -> dict[str, Any]:
        found = super().forward(images)
        return {**found, "scores": found["scores"] + torch.rand(found["scores"].shape)}


class OfTwo(Small):
    """Takes two images and no other number."""

    def forward(self, images: torch.Tensor) -> dict[str, Any]:
        return super().forward(images.reshape(2, 3, 8, 8))


@dataclasses.dataclass
class Holds:
    """A predictor of one network."""

    net: Network
    classes: tuple[str, ...] = ("고양이", "dog | <b>")
    multi_label: bool = True

    def predict(self, images: Any) -> Any:
        raise NotImplementedError

    def network(self) -> Network:
        return self.net


def holds(module: torch.nn.Module, *, dynamic_batch: bool = True) -> Holds:
    network = Network(
        module=module,
        example=torch.rand(2, 3, 8, 8),
        outputs=OUTPUTS,
        preprocessing={"size": [8, 8], "mean": [0.5, 0.5, 0.5]},
        dynamic_batch=dynamic_batch,
    )
    return Holds(network)


@pytest.fixture
def job(tmp_path: Path) -> TrainingJob:
    job = TrainingJob(
        id=7,
        attempt=1,
        framework="timm",
        model_name="hub/small net",
        task_type=TaskType.IMAGE_CLASSIFICATION,
        dataset_path=tmp_path,
        dataset_format=DatasetFormat.IMAGEFOLDER,
        epochs=1,
        batch_size=1,
        learning_rate=0.1,
    )
    return job.placed(output_dir=tmp_path, weights_dir=tmp_path, compute_device="cpu")


def test_onnx_gives_the_same_for_any_number_of_images(job: TrainingJob) -> None:
    module = Small()
    module.train()  # a library may leave it so; dropout must not be in what is exported
    exported = export(job, holds(module), ExportFormat.ONNX)
    assert exported.path.name == "hub-small-net.onnx"
    assert 0 <= exported.largest_difference < 1e-5
    assert tuple(exported.differences) == OUTPUTS
    session = onnxruntime.InferenceSession(exported.path)
    images = torch.rand(5, 3, 8, 8)
    scores, features = session.run(None, {"images": images.numpy()})
    with torch.no_grad():
        expected = module.eval()(images)
    np.testing.assert_allclose(scores, expected["scores"], atol=1e-5)
    np.testing.assert_allclose(features, expected["more"][0], atol=1e-5)
    assert [opset.version for opset in onnx.load(exported.path).opset_import] == [exporting.OPSET]
    what_is_inside(session.get_modelmeta().custom_metadata_map)


def test_torchscript_gives_the_same_for_any_number_of_images(job: TrainingJob) -> None:
    module = Small()
    exported = export(job, holds(module), ExportFormat.TORCHSCRIPT)
    assert exported.path.name == "hub-small-net.torchscript"
    extra = {exporting.METADATA_NAME: ""}
    loaded = torch.jit.load(exported.path, _extra_files=extra)  # type: ignore[no-untyped-call]
    images = torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        torch.testing.assert_close(loaded(images)[0], module.eval()(images)["scores"])
    what_is_inside(json.loads(extra[exporting.METADATA_NAME]))


def what_is_inside(metadata: Mapping[str, str]) -> None:
    assert json.loads(metadata["classes"]) == ["고양이", "dog | <b>"]
    assert json.loads(metadata["preprocessing"])["size"] == [8, 8]
    assert json.loads(metadata["outputs"]) == list(OUTPUTS)
    assert (metadata["job_id"], metadata["multi_label"]) == ("7", "true")


@pytest.mark.parametrize("format", list(ExportFormat))
def test_what_differs_is_refused_with_the_number_and_not_kept(
    job: TrainingJob, format: ExportFormat
) -> None:
    with pytest.raises(TrainingError, match=r"differs from the original by 0\.\d+ in 'scores'"):
        export(job, holds(Restless()), format)
    assert job.output_dir is not None
    assert not list(job.output_dir.glob("exports/*"))


def test_a_model_of_a_fixed_batch_is_compared_on_that(job: TrainingJob) -> None:
    with pytest.raises(TrainingError):
        export(job, holds(OfTwo()), ExportFormat.TORCHSCRIPT)
    exported = export(job, holds(OfTwo(), dynamic_batch=False), ExportFormat.TORCHSCRIPT)
    assert exported.largest_difference == 0


def test_where_tracing_fails_torch_export_is_tried(
    job: TrainingJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: Any) -> bytes:
        raise RuntimeError("an operator that tracing does not follow")

    monkeypatch.setattr(exporting, "_traced_onnx", broken)
    exported = export(job, holds(Small()), ExportFormat.ONNX)
    assert exported.largest_difference < 1e-5
    session = onnxruntime.InferenceSession(exported.path)
    assert session.run(None, {"images": np.zeros((4, 3, 8, 8), np.float32)})[0].shape == (4, 2)
    what_is_inside(session.get_modelmeta().custom_metadata_map)


def test_a_difference_is_measured_in_units_of_large_values() -> None:
    boxes = np.array([[640.0, 0.5]])
    assert exporting.difference(boxes, boxes + 6.4e-3) == pytest.approx(1e-5, rel=1e-3)
    scores = np.array([[0.5, 0.1]])
    assert exporting.difference(scores, scores + 1e-3) == pytest.approx(1e-3)
    assert np.isnan(exporting.difference(scores, scores * np.nan))
