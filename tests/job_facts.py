"""What is known of a job that is asked whether it fits together."""

from __future__ import annotations

from typing import Any

from adapters.contract import TaskType
from adapters.schemas.misfits import JobFacts


def job_facts(**known: Any) -> JobFacts:
    """Return the facts of a plain job, but for what ``known`` says."""
    plain: dict[str, Any] = {
        "task_type": TaskType.IMAGE_CLASSIFICATION,
        "model_name": "resnet18",
        "epochs": 10,
        "batch_size": 8,
        "image_size": None,
        "on_cpu": False,
        "multi_label": False,
        "classes": None,
        "train_images": 100,
    }
    return JobFacts(**{**plain, **known})
