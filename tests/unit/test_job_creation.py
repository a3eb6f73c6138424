"""What a job may begin with and be asked for, beyond the bounds of its fields."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import update

from adapters.contract import TaskType, accuracy_metric
from tests.api import JOB, Api, Person
from webapp.extensions import db
from webapp.models import Dataset, Job
from webapp.services.executors import training_job

JOBS = "/training/jobs"
YOLO = {"framework": "ultralytics", "model_name": "yolo11n", "task_type": "object_detection"}


def put(api: Api, table: Any, id: int, **columns: Any) -> None:
    """Bring a row where only a worker or a look at the data would bring it."""
    with api.app.app_context():
        db.session.execute(update(table).where(table.id == id).values(**columns))
        db.session.commit()


def ask(person: Person, **fields: Any) -> Any:
    return person.post(JOBS, {**JOB, "project_id": 1, "dataset_id": 1, **fields})


def test_a_job_may_begin_with_the_best_weights_of_another(api: Api, ada: Person) -> None:
    first = ada.job(1, 1)["id"]
    put(api, Job, first, status="completed", best_model_path="/outputs/best")
    job = ada.job(1, 1, initial_job_id=first)
    assert job["initial_job_id"] == first
    copy = ada.post(f"{JOBS}/{job['id']}/clone", {}).json
    assert copy["initial_job_id"] == first


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"best_model_path": None}, "has no best model yet"),
        ({"framework": "ultralytics"}, "has the framework ultralytics, not timm"),
        ({"model_name": "resnet34"}, "has the model resnet34, not resnet18"),
        ({"task_type": "pose_estimation"}, "has the task pose_estimation"),
    ],
)
def test_a_job_whose_weights_do_not_fit_is_refused_with_the_reason(
    api: Api, ada: Person, columns: dict[str, Any], said: str
) -> None:
    first = ada.job(1, 1)["id"]
    put(api, Job, first, **{"best_model_path": "/outputs/best", **columns})
    answer = ask(ada, initial_job_id=first)
    assert answer.status_code == 422
    [message] = answer.json["errors"]["initial_job_id"]
    assert said in message


def test_a_job_of_a_project_that_one_may_not_see_is_as_if_it_were_not_there(
    api: Api, ada: Person
) -> None:
    bob = api.person("bob")
    theirs = bob.job(bob.project(), api.dataset(2, "others"))["id"]
    put(api, Job, theirs, best_model_path="/outputs/best")
    for number in (theirs, 999):
        answer = ask(ada, initial_job_id=number)
        assert answer.json["errors"] == {"initial_job_id": [f"There is no job {number}"]}


def test_a_batch_size_of_zero_is_told_as_what_the_worker_found(api: Api, ada: Person) -> None:
    job = ada.job(1, 1, batch_size=0)
    assert (job["batch_size"], job["batch_size_used"], job["decisions"]) == (0, None, {})
    found = {"batch_size": {"value": 48, "why": "the largest that fits"}}
    put(api, Job, job["id"], decisions=found)
    job = ada.get(f"{JOBS}/{job['id']}").json
    assert (job["batch_size"], job["batch_size_used"], job["decisions"]) == (0, 48, found)
    assert ada.job(1, 1, batch_size=16)["batch_size_used"] == 16


def test_a_job_may_ask_for_any_task_that_the_data_serves(api: Api, ada: Person) -> None:
    able = ["instance_segmentation", "object_detection"]
    put(api, Dataset, 1, format="yolo", task_type=able[0], task_types=able)
    assert ask(ada, **YOLO).status_code == 201
    put(api, Dataset, 1, task_types=able[:1])
    [message] = ask(ada, **YOLO).json["errors"]["task_type"]
    assert message == "The data set is for instance_segmentation, not object_detection"
    put(api, Dataset, 1, task_type="object_detection", task_types=None)
    assert ask(ada, **YOLO).status_code == 201


def test_the_rule_of_the_split_goes_with_the_job_to_its_worker(api: Api, ada: Person) -> None:
    put(api, Dataset, 1, split_seed=7, val_share=0.3)
    job = ada.job(1, 1)
    assert (job["split_seed"], job["val_share"]) == (7, 0.3)
    with api.app.app_context():
        row = db.session.get(Job, job["id"])
        assert row is not None
        sent = training_job(row)
    assert (sent.split_seed, sent.val_share) == (7, 0.3)
    assert sent.dataset_fingerprint == job["dataset_fingerprint"]
    assert type(sent).from_message(sent.to_message()) == sent


def test_a_folder_that_a_job_names_is_split_by_the_default_rule(ada: Person) -> None:
    job = ask(ada, dataset_id=None, dataset_path="shades", dataset_format="imagefolder").json
    assert (job["split_seed"], job["val_share"]) == (0, 0.2)


@pytest.mark.parametrize(
    ("hyperparameters", "field", "said"),
    [
        ({"mixupp": 1}, "mixupp", "did you mean mixup"),
        ({"zzzz": 1}, "zzzz", "see GET /api/v1/frameworks"),
        ({"mixup": -1}, "mixup", "greater than or equal to 0"),
        ({"scheduler": "magic"}, "scheduler", "cosine"),
        ({"class_weights": "heavy"}, "class_weights", "'none' or 'balanced'"),
        ({"class_weights": [1.0, 0.0]}, "class_weights", "0.001 (number 2 of the list)"),
        ({"workers": "two"}, "workers", "valid integer"),
    ],
)
def test_a_wrong_hyperparameter_is_named_with_what_would_be_right(
    ada: Person, hyperparameters: dict[str, Any], field: str, said: str
) -> None:
    answer = ask(ada, hyperparameters=hyperparameters)
    assert answer.status_code == 422
    assert list(answer.json["errors"]) == [f"hyperparameters.{field}"]
    assert said in " ".join(answer.json["errors"][f"hyperparameters.{field}"])


def test_a_hyperparameter_that_only_other_tasks_have_is_refused(ada: Person) -> None:
    answer = ask(ada, **YOLO, hyperparameters={"angle": 1.0, "mosaic": 0.5})
    assert answer.status_code == 422
    assert answer.json["errors"] == {
        "hyperparameters.angle": [
            "means nothing for object_detection; it is for oriented_detection"
        ]
    }


def test_transformers_too_refuses_what_only_other_tasks_have(ada: Person) -> None:
    detection = {**YOLO, "framework": "huggingface", "model_name": "detr-test"}
    answer = ask(ada, **detection, hyperparameters={"random_erasing": 0.5, "class_weights": [1.0]})
    assert answer.status_code == 422
    assert set(answer.json["errors"]) == {
        "hyperparameters.class_weights",
        "hyperparameters.random_erasing",
    }


def test_a_learning_rate_that_a_framework_does_not_take_is_refused(ada: Person) -> None:
    answer = ask(ada, **YOLO, learning_rate=5.0)
    assert answer.json["errors"] == {"learning_rate": ["ultralytics takes at most 1"]}


def test_the_accuracy_is_top1_or_without_one_the_mean_average_precision() -> None:
    task = TaskType.IMAGE_CLASSIFICATION
    assert accuracy_metric(task, {"top1", "map"}) == "top1"
    assert accuracy_metric(task, {"map", "f1"}) == "map"
    assert accuracy_metric(task, {"val_loss"}) is None
    assert accuracy_metric(TaskType.OBJECT_DETECTION, {"map"}) is None


def test_a_framework_of_one_class_an_image_is_refused_data_with_several(
    api: Api, ada: Person
) -> None:
    put(api, Dataset, 1, multi_label=True)
    single = {"framework": "ultralytics", "model_name": "yolo11n-cls"}
    [message] = ask(ada, **single).json["errors"]["dataset_id"]
    assert message == "ultralytics gives each image one class; images of this data set have several"
    assert ask(ada).status_code == 201  # timm takes several
    labelled = api.image_folder("labelled")
    for split in ("train", "val"):
        files = sorted((labelled / split).rglob("*.png"))
        rows = [f"{path.relative_to(labelled / split)},{path.parent.name}" for path in files]
        (labelled / split / "labels.csv").write_text("\n".join(["file_name,labels", *rows]))
    by_path = {"dataset_id": None, "dataset_path": "labelled", "dataset_format": "imagefolder"}
    assert list(ask(ada, **single, **by_path).json["errors"]) == ["dataset_path"]
    assert ask(ada, **by_path).status_code == 201
