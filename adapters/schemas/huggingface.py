"""What may be set on a transformers job beyond the fields that every job has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.contract import TaskType
from adapters.huggingface_training.zoo import find_spec
from adapters.schemas.fields import for_tasks, number
from adapters.schemas.misfits import (
    JobFacts,
    Misfit,
    fp16_without_gpu,
    wrong_class_weights,
)

# Those of the Trainer that need no further package.
OPTIMIZERS = ("adamw", "sgd", "adafactor", "rmsprop", "adagrad")
DEFAULT_OPTIMIZER = "adamw"

Scheduler = Literal[
    "cosine", "linear", "polynomial", "constant", "inverse_sqrt", "warmup_stable_decay"
]

ClassWeight = Annotated[float, Field(ge=0.0, le=1e6, allow_inf_nan=False)]

_CLASSES = (TaskType.IMAGE_CLASSIFICATION,)
_NOT_DETECTION = (*_CLASSES, TaskType.SEMANTIC_SEGMENTATION)


class HuggingFaceHyperparameters(BaseModel):
    """Hyperparameters of training with transformers."""

    # strict: "0.1" or true in place of a number is a mistake of the client, not a number.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        # For forms: each group by its first field.
        json_schema_extra={
            "groups": {
                "weight_decay": "Optimizer and schedule",
                "label_smoothing": "Loss",
                "freeze_backbone": "Model",
                "crop_scale_min": "Augmentation",
                "precision": "How it runs",
            }
        },
    )

    # Optimizer and schedule
    weight_decay: float = number(0.05, 0.0, 1.0, "Weight decay; biases and norms are left out.")
    momentum: float = number(0.9, 0.0, 0.999, "Momentum, of 'sgd' and 'rmsprop'.")
    layer_decay: float | None = number(
        None, 0.1, 1.0, "Factor on the learning rate from each layer to the one below it."
    )
    backbone_learning_rate: float = number(
        1.0, 0.0001, 1.0, "Factor on the learning rate of the backbone; DETR's authors take 0.1."
    )
    scheduler: Scheduler = Field(
        "cosine", description="Course of the learning rate, stepped at every update."
    )
    warmup_epochs: float = number(
        1.0, 0.0, 100.0, "Epochs of linear warm-up; at most half of the job's epochs are used."
    )
    min_learning_rate: float = number(
        0.0, 0.0, 1.0, "Learning rate that 'cosine', 'polynomial' and 'warmup_stable_decay' end at."
    )
    gradient_clip: float | None = number(
        None, 1e-6, 1e6, "Bound on the gradients' norm; by default 0.1 for detection, else none."
    )
    accumulation_steps: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Batches whose gradients are added up for one update."
    )

    # Loss
    label_smoothing: float = number(
        0.0, 0.0, 0.9, "Share of the target spread over all classes.", _NOT_DETECTION
    )
    class_weights: Literal["none", "balanced"] | list[ClassWeight] = Field(
        "none",
        description="Weight of each class in the loss: 'balanced' weighs rare ones more, or a "
        "list in the order of the classes.",
        max_length=100_000,
        json_schema_extra=for_tasks(_NOT_DETECTION),
    )

    # Model
    freeze_backbone: bool = Field(
        False, description="Train the head only; useful with pretrained weights."
    )
    ema: bool = Field(
        False, description="Keep a moving average of the weights, validate it and keep its best."
    )
    ema_decay: float = number(0.9998, 0.0, 0.999999, "Decay of the moving average per update.")
    ema_warmup: bool = Field(
        True, description="Begin with a small decay, so that short jobs gain from it too."
    )

    # Augmentation. Nothing that changes what an image means is on unless asked for: a mirrored
    # digit, letter or X-ray is another one. For photographs hflip 0.5 is usual.
    crop_scale_min: float = number(
        0.5, 0.01, 1.0, "Smallest share of the image's area that a random crop keeps."
    )
    crop_ratio_max: float = number(4 / 3, 1.0, 4.0, "Largest stretch of a random crop, either way.")
    hflip: float = number(
        0.0, 0.0, 1.0, "Probability of a mirror image; 0.5 suits photographs, 0 digits and text."
    )
    vflip: float = number(0.0, 0.0, 1.0, "Probability of an image upside down.")
    rotation: float = number(
        0.0,
        0.0,
        45.0,
        "Largest random turn in degrees; of boxes there is none: they would grow.",
        _NOT_DETECTION,
    )
    color_jitter: float = number(
        0.2, 0.0, 1.0, "Random change of brightness, contrast and saturation."
    )
    random_erasing: float = number(
        0.0, 0.0, 1.0, "Probability of a random erased rectangle.", _CLASSES
    )
    augment: bool = Field(True, description="Off: images are only resized, all alike.")

    # How it runs
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="'auto' takes bfloat16 where the processor or the GPU computes in it, else "
        "float32; detection stays in float32. float16 needs a GPU.",
    )
    workers: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None, description="Loader processes; results do not depend on it. Chosen by default."
    )
    early_stopping_patience: Annotated[int, Field(ge=0, le=10000)] = Field(
        0, description="Epochs without a better best metric after which training ends; 0: never."
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.freeze_backbone and self.layer_decay is not None:
            raise ValueError("layer_decay has no effect with freeze_backbone; set one of the two")
        if isinstance(self.class_weights, list) and not any(self.class_weights):
            raise ValueError("class_weights are all 0: nothing would be learnt")
        return self


def misfits(options: HuggingFaceHyperparameters, job: JobFacts) -> Iterator[Misfit]:
    """Yield what transformers cannot train though each value is in its own range."""
    yield from wrong_class_weights(options.class_weights, job.classes)
    yield from fp16_without_gpu(options.precision, on_cpu=job.on_cpu)
    spec = find_spec(job.model_name)
    if spec is not None and job.image_size is not None and job.image_size % spec.size_step:
        near = max(1, round(job.image_size / spec.size_step)) * spec.size_step
        yield Misfit(
            "image_size",
            f"{spec.name} takes image sizes that are multiples of {spec.size_step}, not "
            f"{job.image_size}",
            f"Take {near}, or leave it to the model's own, {spec.image_size}.",
        )
