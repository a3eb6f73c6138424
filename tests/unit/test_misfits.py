"""What is in its range and cannot be trained: said when a job is described, as by its worker."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.scheduler import create_scheduler_v2

from adapters.contract import DatasetFormat, ErrorKind, TaskType, TrainingError, TrainingJob
from adapters.data.describe import describe
from adapters.data.reading import read, read_for
from adapters.data.task_classes import classes_for
from adapters.frameworks import FRAMEWORKS, framework_info
from adapters.huggingface_training import plan as huggingface_plan
from adapters.schemas.misfits import Misfit
from adapters.schemas.timm import TimmHyperparameters, misfits
from adapters.timm_training import plan as timm_plan
from adapters.ultralytics_training import plan as ultralytics_plan
from tests.api import JOB, Api, Person
from tests.job_facts import job_facts
from tests.shapes import compose
from tests.unit.data_sets import make_imagefolder, make_panoptic, make_yolo, write_yaml
from webapp.extensions import db
from webapp.models import Job
from webapp.services.executors import training_job

T = TaskType


def refusal(person: Person, **fields: Any) -> dict[str, list[str]]:
    body = {**JOB, "project_id": 1, "dataset_id": 1, **fields}
    answer = person.post("/training/jobs", {k: v for k, v in body.items() if v is not None})
    assert answer.status_code == 422, answer.text
    errors: dict[str, list[str]] = answer.json["errors"]
    return errors


def timm_checks(job: TrainingJob) -> None:
    timm_plan.make_plan(job, read_for(job))


def huggingface_checks(job: TrainingJob) -> None:
    huggingface_plan.make_plan(job, read_for(job))


def ultralytics_checks(job: TrainingJob) -> None:
    _, options = ultralytics_plan.check_job(job)
    ultralytics_plan.decide_precision(options.precision, "cpu", rtdetr=False)
    ultralytics_plan.read_content(job, options)


HUGGINGFACE = {"framework": "huggingface", "model_name": "mobilevit-small"}
ULTRALYTICS = {"framework": "ultralytics", "model_name": "yolo11n-cls"}


@pytest.mark.parametrize(
    ("asked", "field", "said", "checks"),
    [
        (
            {"hyperparameters": {"class_weights": [1.0, 2.0, 3.0]}},
            "hyperparameters.class_weights",
            "3 numbers, and the data set 2 classes. Give a number for each of dark, light.",
            timm_checks,
        ),
        (
            {"hyperparameters": {"loss": "asymmetric"}},
            "hyperparameters.loss",
            "several classes each. Take 'cross_entropy'.",
            timm_checks,
        ),
        (
            {"hyperparameters": {"mixup": 0.2}, "batch_size": 5},
            "batch_size",
            "need an even batch size, not 5. Take 6, or switch mixing off.",
            timm_checks,
        ),
        (
            {"hyperparameters": {"scheduler": "wsd"}, "epochs": 1},
            "hyperparameters.scheduler",
            "0.5 updates are too few",
            timm_checks,
        ),
        (
            {"hyperparameters": {"precision": "fp16"}, "device": "cpu"},
            "hyperparameters.precision",
            "precision fp16 needs a GPU. Take 'auto'",
            timm_checks,
        ),
        (
            {**HUGGINGFACE, "hyperparameters": {"class_weights": [1.0]}},
            "hyperparameters.class_weights",
            "1 number, and the data set 2 classes",
            huggingface_checks,
        ),
        (
            {**HUGGINGFACE, "hyperparameters": {"precision": "fp16"}, "device": "cpu"},
            "hyperparameters.precision",
            "precision fp16 needs a GPU",
            huggingface_checks,
        ),
        (
            {**HUGGINGFACE, "image_size": 100},
            "image_size",
            "multiples of 32, not 100. Take 96, or leave it to the model's own",
            huggingface_checks,
        ),
        (
            {**ULTRALYTICS, "hyperparameters": {"precision": "fp16"}, "device": "cpu"},
            "hyperparameters.precision",
            "precision fp16 needs a GPU",
            ultralytics_checks,
        ),
    ],
)
def test_a_misfit_is_refused_at_creation_and_clone_in_the_words_of_the_worker(
    api: Api,
    ada: Person,
    tmp_path: Path,
    asked: dict[str, Any],
    field: str,
    said: str,
    checks: Callable[[TrainingJob], None],
) -> None:
    told = refusal(ada, **asked)
    assert list(told) == [field]
    assert said in told[field][0]
    by_path = {"dataset_id": None, "dataset_path": "shades", "dataset_format": "imagefolder"}
    assert refusal(ada, **asked, **by_path) == told

    job = ada.job(1, 1)
    answer = ada.post(f"/training/jobs/{job['id']}/clone", {"overrides": asked})
    assert answer.status_code == 422
    assert answer.json["errors"] == {f"overrides.{field}": told[field]}

    with api.app.app_context():
        row = db.session.get(Job, job["id"])
        assert row is not None
        sent = training_job(row)
    fields = {k: v for k, v in asked.items() if k != "device"}
    placed = dataclasses.replace(sent, **fields).placed(
        output_dir=tmp_path / "out", weights_dir=tmp_path, compute_device="cpu"
    )
    with pytest.raises(TrainingError) as caught:
        checks(placed)
    assert caught.value.kind is ErrorKind.UNSUPPORTED
    assert told[field] == [f"{caught.value.message}. {caught.value.hint}"]


def test_what_fits_is_taken(ada: Person) -> None:
    ada.job(1, 1, hyperparameters={"class_weights": [1.0, 2.0], "mixup": 0.2})
    ada.job(1, 1, hyperparameters={"mixup": 0.2}, batch_size=0)
    ada.job(1, 1, hyperparameters={"mixup": 0.2, "mixup_prob": 0.0}, batch_size=5)
    ada.job(1, 1, hyperparameters={"precision": "fp16"})  # a GPU may take it
    ada.job(1, 1, hyperparameters={"scheduler": "wsd"}, epochs=10)


def test_all_that_does_not_fit_is_said_at_once(ada: Person) -> None:
    wrong = {"class_weights": [1.0], "loss": "asymmetric", "cutmix": 1.0}
    assert set(refusal(ada, batch_size=3, hyperparameters=wrong)) == {
        "batch_size",
        "hyperparameters.class_weights",
        "hyperparameters.loss",
    }


@pytest.mark.parametrize(
    ("batch_size", "train_images", "devices", "said"),
    [
        (6, 100, 1, None),
        (5, 100, 1, "an even batch size, not 5. Take 6, "),
        (8, 7, 1, "an even batch size, not 7. Take 6, "),  # they are one batch
        (1, 1, 1, "an even batch size, not 1. Switch mixing off."),
        (6, 100, 2, "a batch size that 4 divides, not 6. Take 8, "),
        (None, 7, 1, None),
        (5, None, 1, None),
    ],
)
def test_mixing_needs_a_batch_that_can_be_halved_on_each_device(
    batch_size: int | None, train_images: int | None, devices: int, said: str | None
) -> None:
    facts = job_facts(batch_size=batch_size, train_images=train_images, devices=devices)
    found = list(misfits(TimmHyperparameters(mixup=0.2), facts))
    assert len(found) == (said is not None)
    if said is not None:
        assert said in f"{found[0].message}. {found[0].hint}"


@pytest.mark.parametrize(
    ("hyperparameters", "fields"),
    [
        ({"loss": "cross_entropy"}, ["hyperparameters.loss"]),
        ({"cutmix": 1.0}, ["hyperparameters.cutmix"]),
        ({"cutmix": 1.0, "mixup_prob": 0.0}, []),
        ({"loss": "asymmetric", "mixup": 0.2}, []),
    ],
)
def test_what_several_classes_an_image_make_impossible_is_told(
    hyperparameters: dict[str, Any], fields: list[str]
) -> None:
    found = misfits(TimmHyperparameters(**hyperparameters), job_facts(multi_label=True))
    assert [misfit.field for misfit in found] == fields


@pytest.mark.parametrize("epochs", [1, 2, 3, 4])
@pytest.mark.parametrize("warmup", [0.0, 1.0, 0.3])
def test_a_schedule_is_too_short_where_timm_says_so(epochs: int, warmup: float) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    for updates in range(1, 8):
        facts = job_facts(batch_size=1, train_images=updates, epochs=epochs)
        options = TimmHyperparameters(scheduler="wsd", warmup_epochs=warmup)
        try:
            create_scheduler_v2(
                optimizer,
                sched="wsd",
                num_epochs=epochs,
                warmup_epochs=min(warmup, epochs / 2),
                decay_epochs=None,
                step_on_epochs=False,
                updates_per_epoch=updates,
            )
        except ValueError:
            fits = False
        else:
            fits = True
        assert (not list(misfits(options, facts))) == fits, updates


def test_a_package_may_say_what_does_not_fit_and_need_not(
    ada: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(options: TimmHyperparameters, job: Any) -> Iterator[Misfit]:
        yield Misfit("epochs", f"{job.epochs} epochs of {len(job.classes)} classes", "Take none.")

    for told, expected in ((found, 422), (None, 201)):
        info = dataclasses.replace(framework_info("timm"), misfits=told)
        monkeypatch.setitem(FRAMEWORKS, "timm", info)
        body = {**JOB, "project_id": 1, "dataset_id": 1, "batch_size": 3}
        answer = ada.post("/training/jobs", {**body, "hyperparameters": {"mixup": 0.2}})
        assert answer.status_code == expected
        if told is found:
            assert answer.json["errors"] == {"epochs": ["4 epochs of 2 classes. Take none."]}


@pytest.mark.parametrize("kind", ["imagefolder", "yolo", "background", "coco", "panoptic"])
def test_the_classes_of_a_task_are_foreseen_as_they_are_read(tmp_path: Path, kind: str) -> None:
    if kind == "imagefolder":
        folder = make_imagefolder(tmp_path)
    elif kind == "panoptic":
        folder = make_panoptic(tmp_path)
    elif kind == "coco":
        folder = compose(tmp_path, format=DatasetFormat.COCO, task_type=T.INSTANCE_SEGMENTATION)
    else:
        folder = make_yolo(tmp_path, line="0 0.1 0.1 0.6 0.1 0.6 0.6")
        if kind == "background":
            write_yaml(folder, "names: [cat, background]\n")
    described = describe(folder)
    known = 0
    for task in described.task_types:
        foreseen = classes_for(
            described.format, described.classes, described=described.task_type, task_type=task
        )
        found = read(folder, format=described.format, task_type=task)
        assert foreseen in (None, tuple(found.classes))
        known += foreseen is not None
    assert known >= {"imagefolder": 1, "panoptic": 1, "coco": 3}.get(
        kind, len(described.task_types)
    )
