"""What may be set on a timm job beyond the fields that every job has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from adapters.schemas.fields import number
from adapters.schemas.misfits import (
    JobFacts,
    Misfit,
    fp16_without_gpu,
    wrong_class_weights,
)

OPTIMIZERS = (
    "adamw",
    "adam",
    "nadamw",
    "radam",
    "sgd",
    "momentum",
    "rmsproptf",
    "lamb",
    "lion",
    "adafactor",
    "adan",
    "adopt",
    "muon",
)
DEFAULT_OPTIMIZER = "adamw"
_WSD_DECAY = 0.2  # of the updates after the warm-up; timm's own

AutoAugment = Literal[
    "none",
    "rand-m5-mstd0.5-inc1",
    "rand-m7-mstd0.5-inc1",
    "rand-m9-mstd0.5-inc1",
    "original",
    "v0",
    "3a",
    "augmix-m3-w3",
]


ClassWeight = Annotated[float, Field(ge=0.001, le=1000.0, allow_inf_nan=False)]


class TimmHyperparameters(BaseModel):
    """Hyperparameters of image classification with timm."""

    # strict: "0.1" or true in place of a number is a mistake of the client, not a number.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        # For forms: each group by its first field.
        json_schema_extra={
            "groups": {
                "weight_decay": "Optimizer and schedule",
                "loss": "Loss",
                "drop_rate": "Model",
                "crop_scale_min": "Augmentation",
                "precision": "How it runs",
            }
        },
    )

    # Optimizer and schedule
    weight_decay: float = number(0.05, 0.0, 1.0, "Weight decay; biases and norms are left out.")
    momentum: float = number(0.9, 0.0, 0.999, "Momentum, of optimizers that have one.")
    layer_decay: float | None = number(
        None, 0.1, 1.0, "Factor on the learning rate from each layer to the one below it."
    )
    scheduler: Literal["cosine", "step", "poly", "wsd", "constant"] = Field(
        "cosine", description="Course of the learning rate, stepped at every update."
    )
    warmup_epochs: float = number(
        1.0, 0.0, 100.0, "Epochs of linear warm-up; at most half of the job's epochs are used."
    )
    min_learning_rate: float = number(1e-6, 0.0, 1.0, "Learning rate that the schedule ends at.")
    decay_epochs: float | None = number(
        None, 0.01, 10000.0, "Epochs between steps of 'step'; by default a third of the job's."
    )
    decay_rate: float = number(0.1, 0.0, 1.0, "Factor of each step of 'step'; power of 'poly'.")
    gradient_clip: float | None = number(
        None, 1e-6, 1e6, "Bound on gradients; none where it is left out."
    )
    gradient_clip_mode: Literal["norm", "value", "agc"] = Field(
        "norm", description="What is bound: the norm of all, each value, or by unit (AGC)."
    )
    accumulation_steps: Annotated[int, Field(ge=1, le=256)] = Field(
        1, description="Batches whose gradients are added up for one update."
    )

    # Loss
    loss: Literal["auto", "cross_entropy", "bce", "asymmetric", "poly"] = Field(
        "auto",
        description="Training loss; 'auto' is cross-entropy, and 'bce' (binary, each class for "
        "itself) where an image may have several classes. 'asymmetric' is for those only.",
    )
    class_weights: Literal["none", "balanced"] | list[ClassWeight] = Field(
        "none",
        description="Factors on the loss of each class: 'balanced' lets rare classes count as much "
        "as frequent ones; or a list, in the order of the data set's classes. Not with 'poly'.",
        max_length=100_000,
    )
    label_smoothing: float = number(
        0.1,
        0.0,
        0.9,
        "Share of the target spread over all classes; with several classes an image, half of it "
        "off each target.",
    )
    mixup: float = number(0.0, 0.0, 10.0, "Alpha of mixup; 0 switches it off.")
    cutmix: float = number(
        0.0, 0.0, 10.0, "Alpha of cutmix; 0 switches it off. Of one class an image only."
    )
    mixup_prob: float = number(1.0, 0.0, 1.0, "Share of batches that are mixed.")
    mixup_switch_prob: float = number(
        0.5, 0.0, 1.0, "Share of mixed batches that get cutmix where both are on."
    )

    # Model
    drop_rate: float | None = number(
        None, 0.0, 0.95, "Dropout before the classifier; the model's own by default."
    )
    drop_path: float | None = number(
        None, 0.0, 0.95, "Stochastic depth, of models that have it; the model's own by default."
    )
    freeze_backbone: bool = Field(
        False, description="Train the classifier only; useful with pretrained weights."
    )
    freeze_stages: Annotated[int, Field(ge=0, le=100)] = Field(
        0,
        description="Stages that are not trained, from the input on; the stem is the first. "
        "Their batch statistics stay, too.",
    )
    ema: bool = Field(
        False, description="Keep a moving average of the weights, validate it and keep its best."
    )
    ema_decay: float = number(0.9998, 0.0, 0.999999, "Decay of the moving average per update.")
    ema_warmup: bool = Field(
        True, description="Begin with a small decay, so that short jobs gain from it too."
    )

    # Augmentation. Nothing that changes what an image means is on unless asked for: a mirrored
    # digit, letter or X-ray is another one. For photographs hflip 0.5 is what timm uses.
    crop_scale_min: float = number(
        0.5, 0.01, 1.0, "Smallest share of the image's area that a random crop keeps."
    )
    crop_ratio_max: float = number(4 / 3, 1.0, 4.0, "Largest stretch of a random crop, either way.")
    hflip: float = number(
        0.0, 0.0, 1.0, "Probability of a mirror image; 0.5 suits photographs, 0 digits and text."
    )
    vflip: float = number(0.0, 0.0, 1.0, "Probability of an image upside down.")
    color_jitter: float = number(
        0.2,
        0.0,
        1.0,
        "Random change of brightness, contrast and saturation; off with auto_augment.",
    )
    auto_augment: AutoAugment = Field(
        "none", description="Policy of timm: RandAugment (rand-…), AutoAugment or AugMix."
    )
    random_erasing: float = number(0.0, 0.0, 1.0, "Probability of a random erased rectangle.")
    augment: bool = Field(True, description="Off: images are only resized and cropped, all alike.")

    # How it runs
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto",
        description="'auto' takes bfloat16 where the processor or the GPU computes in it, else "
        "float16 on a GPU and float32 on a processor. float16 needs a GPU.",
    )
    channels_last: bool = Field(True, description="Memory order that convolutions are faster in.")
    workers: Annotated[int, Field(ge=0, le=16)] | None = Field(
        None, description="Loader processes; results do not depend on it. Chosen by default."
    )
    early_stopping_patience: Annotated[int, Field(ge=0, le=10000)] = Field(
        0,
        description="Epochs without a better top-1 (mean average precision, with several classes "
        "an image) after which training ends; 0 never ends.",
    )

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        if self.freeze_backbone and self.layer_decay is not None:
            raise ValueError("layer_decay has no effect with freeze_backbone; set one of the two")
        if self.freeze_backbone and self.freeze_stages:
            raise ValueError("freeze_backbone freezes all stages; leave out freeze_stages")
        if self.loss == "poly" and self.class_weights != "none":
            raise ValueError("class_weights cannot be applied to the loss 'poly'; take another")
        return self

    @property
    def mixing(self) -> bool:
        """Whether batches are mixed, which needs an even batch size."""
        return (self.mixup > 0 or self.cutmix > 0) and self.mixup_prob > 0


def misfits(options: TimmHyperparameters, job: JobFacts) -> Iterator[Misfit]:
    """Yield what timm cannot train though each value is in its own range."""
    yield from _of_several_classes(options) if job.multi_label else _of_one_class(options)
    yield from wrong_class_weights(options.class_weights, job.classes)
    yield from fp16_without_gpu(options.precision, on_cpu=job.on_cpu)
    if job.batch_size is not None and job.train_images is not None:
        # A set smaller than one batch is one batch.
        yield from _of_batches(options, job, batch=min(job.batch_size, job.train_images))


def _of_one_class(options: TimmHyperparameters) -> Iterator[Misfit]:
    if options.loss == "asymmetric":
        yield Misfit(
            "hyperparameters.loss",
            "the loss 'asymmetric' is for images of several classes each",
            "Take 'cross_entropy'.",
        )


def _of_several_classes(options: TimmHyperparameters) -> Iterator[Misfit]:
    if options.loss == "cross_entropy":
        yield Misfit(
            "hyperparameters.loss",
            "the loss 'cross_entropy' is for one class an image, and here there may be several",
            "Take 'auto', 'bce', 'asymmetric' or 'poly'.",
        )
    if options.cutmix > 0 and options.mixup_prob > 0:
        yield Misfit(
            "hyperparameters.cutmix",
            "cutmix cannot be used where an image may have several classes: which of them lie in "
            "the part that is cut out is not known",
            "Take mixup, or switch both off.",
        )


def _of_batches(options: TimmHyperparameters, job: JobFacts, *, batch: int) -> Iterator[Misfit]:
    assert job.batch_size is not None
    assert job.train_images is not None
    even = 2 * job.devices  # of each device's share one half is mixed into the other
    if options.mixing and batch % even:
        wanted = "an even batch size" if even == 2 else f"a batch size that {even} divides"
        larger = even * -(-batch // even)
        if larger <= job.train_images:
            hint = f"Take {larger}, or switch mixing off."
        elif batch > even:
            hint = f"Take {even * (batch // even)}, or switch mixing off."
        else:
            hint = "Switch mixing off."
        yield Misfit("batch_size", f"mixup and cutmix need {wanted}, not {batch}", hint)
    if options.scheduler == "wsd":
        batches = max(1, job.train_images // job.batch_size)
        updates = -(-batches // options.accumulation_steps)
        left = updates * (job.epochs - min(options.warmup_epochs, job.epochs / 2))
        if round(_WSD_DECAY * left) < 1:
            yield Misfit(
                "hyperparameters.scheduler",
                f"the scheduler 'wsd' decays in the last fifth of what follows the warm-up, and "
                f"{left:.3g} updates are too few for that",
                "Train for more epochs, or take 'cosine'.",
            )
