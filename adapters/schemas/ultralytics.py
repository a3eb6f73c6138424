"""What may be set on an Ultralytics job beyond the fields that every job has."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

OPTIMIZERS = ("adamw", "sgd", "adam", "adamax", "nadam", "radam", "rmsprop", "musgd", "auto")
DEFAULT_OPTIMIZER = "adamw"
IMAGE_SIZE_STEP = 32  # the coarsest stride of the models


def _number(default: float | None, low: float, high: float, description: str) -> Any:
    """Return a field of a finite number between two bounds, both allowed."""
    return Field(default, ge=low, le=high, allow_inf_nan=False, description=description)


class UltralyticsHyperparameters(BaseModel):
    """Hyperparameters of detection with Ultralytics; the names are the library's own."""

    # strict: "0.1" or true in place of a number is a mistake of the client, not a number.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    # Optimizer and schedule
    lrf: float = _number(0.01, 0.0, 1.0, "Last learning rate as a share of the first.")
    momentum: float = _number(0.937, 0.0, 0.999, "Momentum of SGD, first beta of the Adam family.")
    weight_decay: float = _number(0.0005, 0.0, 1.0, "Weight decay; biases and norms are left out.")
    cos_lr: bool = Field(False, description="A cosine course of the learning rate, not a line.")
    warmup_epochs: float = _number(3.0, 0.0, 100.0, "Epochs of linear warm-up.")
    warmup_momentum: float = _number(0.8, 0.0, 0.999, "Momentum that the warm-up begins with.")
    warmup_bias_lr: float | None = _number(
        None,
        0.0,
        1.0,
        "Learning rate of biases that the warm-up begins with; by default 0.1 with SGD, else 0.",
    )
    nbs: Annotated[int, Field(ge=1, le=1024)] | None = Field(
        None,
        description="Nominal batch size: gradients of round(nbs / batch_size) batches are added "
        "up for one update. By default every batch is an update.",
    )
    patience: Annotated[int, Field(ge=0, le=10000)] = Field(
        0, description="Epochs without a better mAP50-95 after which training ends; 0 never ends."
    )

    # Loss
    box: float = _number(7.5, 0.0, 100.0, "Weight of the box loss.")
    cls: float = _number(0.5, 0.0, 100.0, "Weight of the class loss.")
    dfl: float = _number(1.5, 0.0, 100.0, "Weight of the distribution focal (or L1) loss.")
    cls_pw: float = _number(
        0.0, 0.0, 1.0, "Power of the inverse class frequency that weighs rare classes up; 0 is off."
    )

    # Model
    freeze: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="First layers that are not trained; useful with pretrained weights."
    )
    single_cls: bool = Field(False, description="Take all classes for one: find things only.")

    # Augmentation. Nothing that changes what an image means is on unless asked for: a mirrored
    # digit, letter or X-ray is another one. For photographs fliplr 0.5 is what Ultralytics uses.
    hsv_h: float = _number(0.015, 0.0, 1.0, "Largest random change of the hue.")
    hsv_s: float = _number(0.7, 0.0, 1.0, "Largest random change of the saturation.")
    hsv_v: float = _number(0.4, 0.0, 1.0, "Largest random change of the brightness.")
    degrees: float = _number(0.0, 0.0, 180.0, "Largest rotation, either way, in degrees.")
    translate: float = _number(0.1, 0.0, 1.0, "Largest shift as a share of the image's side.")
    scale: float = _number(0.5, 0.0, 0.99, "Largest change of size, either way, as a share.")
    shear: float = _number(0.0, 0.0, 90.0, "Largest shear, either way, in degrees.")
    perspective: float = _number(0.0, 0.0, 0.001, "Largest change of perspective.")
    flipud: float = _number(0.0, 0.0, 1.0, "Probability of an image upside down.")
    fliplr: float = _number(
        0.0, 0.0, 1.0, "Probability of a mirror image; 0.5 suits photographs, 0 digits and text."
    )
    bgr: float = _number(0.0, 0.0, 1.0, "Probability of red and blue changing places.")
    mosaic: float = _number(1.0, 0.0, 1.0, "Probability of four images put together as one.")
    close_mosaic: Annotated[int, Field(ge=0, le=10000)] = Field(
        10, description="Last epochs that go without mosaic, mixup and cutmix."
    )
    mixup: float = _number(0.0, 0.0, 1.0, "Probability of two images laid over each other.")
    cutmix: float = _number(0.0, 0.0, 1.0, "Probability of a part taken from another image.")
    multi_scale: float = _number(
        0.0, 0.0, 0.5, "Random change of the training image size from batch to batch, as a share."
    )

    # Validation
    iou: float = _number(0.7, 0.01, 1.0, "Overlap from which two boxes of a class are one thing.")
    max_det: Annotated[int, Field(ge=1, le=10000)] = Field(
        300, description="Most boxes of an image."
    )
    plots: bool = Field(
        True, description="Draw the confusion matrix, the curves and examples of the last epoch."
    )

    # How it runs
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="'auto' takes bfloat16 where the processor or the GPU computes in it, else "
        "float16 on a GPU and float32 on a processor. float16 needs a GPU.",
    )
    workers: Annotated[int, Field(ge=0, le=16)] = Field(
        4, description="Loader processes on a GPU host; a processor loads in the child itself."
    )
    cache_images: bool = Field(
        False, description="Keep decoded images in memory where they fit; repeats are less exact."
    )
    deterministic: bool = Field(
        True, description="Prefer operations that give the same result each time, if slower."
    )
