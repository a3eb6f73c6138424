"""What may be set on an Ultralytics job beyond the fields that every job has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from adapters.contract import TaskType
from adapters.schemas.fields import for_tasks, number, tasks_of
from adapters.schemas.misfits import JobFacts, Misfit, fp16_without_gpu

OPTIMIZERS = ("adamw", "sgd", "adam", "adamax", "nadam", "radam", "rmsprop", "musgd", "auto")
DEFAULT_OPTIMIZER = "adamw"
IMAGE_SIZE_STEP = 32  # the coarsest stride of the models
LARGEST_LEARNING_RATE = 1.0  # of the library's own check


_BOXES = (
    TaskType.OBJECT_DETECTION,
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.POSE_ESTIMATION,
    TaskType.ORIENTED_DETECTION,
)
_PLACES = (*_BOXES, TaskType.SEMANTIC_SEGMENTATION)  # all but classification
_OUTLINES = (
    TaskType.INSTANCE_SEGMENTATION,
    TaskType.SEMANTIC_SEGMENTATION,
    TaskType.ORIENTED_DETECTION,
)
_MASKS = (TaskType.INSTANCE_SEGMENTATION,)
_POSE = (TaskType.POSE_ESTIMATION,)
_ORIENTED = (TaskType.ORIENTED_DETECTION,)
_CLASSES = (TaskType.IMAGE_CLASSIFICATION,)

# RT-DETR has losses of its own, with fixed weights, and no suppression of overlaps.
_NOT_RTDETR = ("box", "cls", "dfl", "cls_pw", "iou")


def _field(default: Any, description: str, tasks: tuple[TaskType, ...] = (), **bounds: Any) -> Any:
    """Return a field; ``tasks`` are those that have it, all where there are none."""
    return Field(default, description=description, json_schema_extra=for_tasks(tasks), **bounds)


class UltralyticsHyperparameters(BaseModel):
    """Hyperparameters of training with Ultralytics; the names are the library's own.

    Fixed by the library: gradients are clipped to a norm of 10, and the model that is validated
    and kept is an exponential moving average of the trained one.
    """

    # strict: "0.1" or true in place of a number is a mistake of the client, not a number.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        # For forms: each group by its first field.
        json_schema_extra={
            "groups": {
                "lrf": "Optimizer and schedule",
                "box": "Loss",
                "freeze": "Model",
                "hsv_h": "Augmentation",
                "iou": "Validation",
                "precision": "How it runs",
            }
        },
    )

    # Optimizer and schedule
    lrf: float = number(0.01, 0.0, 1.0, "Last learning rate as a share of the first.")
    momentum: float = number(0.937, 0.0, 0.999, "Momentum of SGD, first beta of the Adam family.")
    weight_decay: float = number(0.0005, 0.0, 1.0, "Weight decay; biases and norms are left out.")
    cos_lr: bool = Field(False, description="A cosine course of the learning rate, not a line.")
    warmup_epochs: float = number(3.0, 0.0, 100.0, "Epochs of linear warm-up.")
    warmup_momentum: float = number(0.8, 0.0, 0.999, "Momentum that the warm-up begins with.")
    warmup_bias_lr: float | None = number(
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
        0, description="Epochs without a better fitness after which training ends; 0 never ends."
    )

    # Loss
    box: float = number(7.5, 0.0, 100.0, "Weight of the box loss.", _BOXES)
    cls: float = number(0.5, 0.0, 100.0, "Weight of the class loss.", _BOXES)
    dfl: float = number(1.5, 0.0, 100.0, "Weight of the distribution focal (or L1) loss.", _BOXES)
    cls_pw: float = number(
        0.0,
        0.0,
        1.0,
        "Class weights: power of the inverse class frequency that lifts rare classes; 0 is off.",
        _PLACES,
    )
    pose: float = number(12.0, 0.0, 100.0, "Weight of the keypoints' loss.", _POSE)
    kobj: float = number(1.0, 0.0, 100.0, "Weight of the loss of keypoints' visibility.", _POSE)
    rle: float = number(
        1.0, 0.0, 100.0, "Weight of the likelihood loss of YOLO26's keypoints.", _POSE
    )
    angle: float = number(1.0, 0.0, 100.0, "Weight of the angle's loss.", _ORIENTED)
    overlap_mask: bool = _field(
        True, "Put the masks of an image into one, the smaller over the larger.", _MASKS
    )
    mask_ratio: Annotated[int, Field(ge=1, le=16)] = _field(
        4, "How many times smaller than the image masks are trained.", _MASKS
    )

    # Model
    freeze: Annotated[int, Field(ge=0, le=100)] = Field(
        0, description="First layers that are not trained; useful with pretrained weights."
    )
    single_cls: bool = _field(False, "Take all classes for one: find things only.", _BOXES)
    dropout: float = number(
        0.0, 0.0, 0.99, "Share of features dropped before the last layer.", _CLASSES
    )

    # Augmentation. Nothing that changes what an image means is on unless asked for: a mirrored
    # digit, letter or X-ray is another one. For photographs fliplr 0.5 is what Ultralytics uses.
    hsv_h: float = number(0.015, 0.0, 1.0, "Largest random change of the hue.")
    hsv_s: float = number(0.7, 0.0, 1.0, "Largest random change of the saturation.")
    hsv_v: float = number(0.4, 0.0, 1.0, "Largest random change of the brightness.")
    degrees: float = number(0.0, 0.0, 180.0, "Largest rotation, either way, in degrees.", _PLACES)
    translate: float = number(
        0.1, 0.0, 1.0, "Largest shift as a share of the image's side.", _PLACES
    )
    scale: float = number(
        0.5,
        0.0,
        0.99,
        "Largest change of size, either way, as a share; for classification 1 less the smallest "
        "area that is cut out.",
    )
    shear: float = number(0.0, 0.0, 90.0, "Largest shear, either way, in degrees.", _PLACES)
    perspective: float = number(0.0, 0.0, 0.001, "Largest change of perspective.", _PLACES)
    flipud: float = number(0.0, 0.0, 1.0, "Probability of an image upside down.")
    fliplr: float = number(
        0.0, 0.0, 1.0, "Probability of a mirror image; 0.5 suits photographs, 0 digits and text."
    )
    bgr: float = number(0.0, 0.0, 1.0, "Probability of red and blue changing places.", _PLACES)
    mosaic: float = number(
        1.0, 0.0, 1.0, "Probability of four images put together as one.", _PLACES
    )
    close_mosaic: Annotated[int, Field(ge=0, le=10000)] = _field(
        10, "Last epochs that go without mosaic, mixup, cutmix and copy_paste.", _PLACES
    )
    mixup: float = number(0.0, 0.0, 1.0, "Probability of two images laid over each other.", _PLACES)
    cutmix: float = number(
        0.0, 0.0, 1.0, "Probability of a part taken from another image.", _PLACES
    )
    copy_paste: float = number(
        0.0, 0.0, 1.0, "Share of an image's objects that are copied into it.", _OUTLINES
    )
    copy_paste_mode: Literal["flip", "mixup"] = _field(
        "flip", "What copies come from: the mirrored image or another one.", _OUTLINES
    )
    multi_scale: float = number(
        0.0,
        0.0,
        0.5,
        "Random change of the training image size from batch to batch, as a share.",
        _PLACES,
    )
    auto_augment: Literal["randaugment", "autoaugment", "augmix", "none"] = _field(
        "randaugment", "Policy of augmentation; with 'none' hsv_h, hsv_s and hsv_v count.", _CLASSES
    )
    erasing: float = number(0.4, 0.0, 0.9, "Probability of a part being erased.", _CLASSES)

    # Validation
    iou: float = number(
        0.7, 0.01, 1.0, "Overlap from which two boxes of a class are one thing.", _BOXES
    )
    max_det: Annotated[int, Field(ge=1, le=10000)] = _field(300, "Most boxes of an image.", _BOXES)
    plots: bool = Field(
        True,
        description="Draw the confusion matrix, the curves and examples of the first and the last "
        "epoch.",
    )

    # How it runs
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="'auto' takes bfloat16 where the processor or the GPU computes in it, else "
        "float16 on a GPU and float32 on a processor; float32 for RT-DETR, whose matching half "
        "precision can break. float16 needs a GPU.",
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


def misfits(options: UltralyticsHyperparameters, job: JobFacts) -> Iterator[Misfit]:
    """Yield what Ultralytics cannot train though each value is in its own range."""
    for name in sorted(options.model_fields_set):
        tasks = tasks_of(UltralyticsHyperparameters.model_fields[name])
        if tasks and str(job.task_type) not in tasks:
            reason = f"{job.task_type}; it is for {', '.join(tasks)}"
        elif name in _NOT_RTDETR and is_rtdetr(job.model_name):
            reason = "RT-DETR, which has losses of its own"
        else:
            continue
        message = f"'{name}' means nothing for {reason}"
        yield Misfit(f"hyperparameters.{name}", message, "Leave it out.")
    yield from fp16_without_gpu(options.precision, on_cpu=job.on_cpu)
    semantic = job.task_type == TaskType.SEMANTIC_SEGMENTATION
    if semantic and job.classes is not None and len(job.classes) < 2:
        yield Misfit(
            "task_type",
            "semantic segmentation needs two classes; the background may be one",
            "Name the background among the classes of the data set.",
        )


def is_rtdetr(model_name: str) -> bool:
    return "rtdetr" in model_name
