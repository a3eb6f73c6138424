"""What the web application knows of the framework; it imports this, so nothing heavy is here."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from adapters.catalog import ModelEntry
from adapters.contract import DatasetFormat, TaskType
from adapters.frameworks import FrameworkInfo

TASK = TaskType.IMAGE_CLASSIFICATION
SIZES = {"mean8": 8, "mean16": 16, "mean32": 32}  # the side in pixels that an image is shrunk to


class NearestMeanHyperparameters(BaseModel):
    """Hyperparameters of a job; an unknown name or a wrong value is refused at its creation."""

    model_config = ConfigDict(extra="forbid", strict=True)

    push: float = Field(
        0.5,
        ge=0,
        le=1,
        description="How far a wrong class is pushed, as a share of a right one's pull",
    )


INFO = FrameworkInfo(
    name="nearest-mean",
    title="Nearest mean",
    licence="Apache-2.0",
    task_types=(TASK,),
    formats={TASK: (DatasetFormat.IMAGEFOLDER,)},
    optimizers=("lvq",),
    hyperparameters=NearestMeanHyperparameters,
    models=tuple(
        ModelEntry(
            "nearest-mean", name, (str(TASK),), params_m=0.0, input_size=size, pretrained=False
        )
        for name, size in SIZES.items()
    ),
)
