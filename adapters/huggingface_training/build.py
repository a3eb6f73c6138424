"""The model of a job, its processor and its optimizer's groups, made from a plan."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import adapters.huggingface_training.offline  # noqa: F401  (before the library)

# isort: split
import torch
from transformers import CONFIG_MAPPING

from adapters.contract import ErrorKind, Reporter, TaskType, TrainingError
from adapters.failures import is_out_of_memory
from adapters.huggingface_training.architecture import (
    forward_arguments,
    make_config,
    make_processor,
    model_class,
    needs_package,
    new_model,
)
from adapters.huggingface_training.ema import MovingAverage
from adapters.huggingface_training.plan import Plan
from adapters.huggingface_training.pretrained import (
    WEIGHTS,
    StoppedMeanwhile,
    Weights,
    pretrained_weights,
    read_weights,
)
from adapters.huggingface_training.tasks import Task, make_task
from adapters.randomness import Stream, derive_seed, seed_everything

_LARGEST_NEW_SHARE = 0.25  # of all parameters, beside the head
_HEAD = re.compile(
    r"(^|\.)(classifier|cls_classifier|distillation_classifier|head|head_dist|fc|class_labels_classifier|class_embed|"
    r"bbox_embed|bbox_predictor|enc_score_head|enc_bbox_head|denoising_class_embed|decode_head|"
    r"auxiliary_head|segmentation_head)\."
)


@dataclass
class Parts:
    """What is trained, and what belongs to it."""

    model: Any
    forward: dict[str, Any]  # what the model is told beside its images
    processor: Any
    task: Task
    ema: MovingAverage | None

    @property
    def evaluated(self) -> Any:
        """Return the model that is validated and kept as the best: the averaged one, if any."""
        return self.model if self.ema is None else self.ema.model


def build(plan: Plan, reporter: Reporter, *, load_weights: bool) -> Parts:
    """Make all parts of a training. Raises TrainingError where the library cannot."""
    weights = _weights(plan, reporter) if load_weights else None
    seed_everything(derive_seed(plan.job.seed, Stream.MODEL))
    model = _model(plan, weights, reporter)
    processor = make_processor(
        plan.spec,
        task_type=plan.job.task_type,
        image_size=plan.image_size,
        published=weights.preprocessor if weights else None,
    )
    return finish(plan, model, processor)


def rebuild(plan: Plan, kept: Mapping[str, Any]) -> Parts:
    """Make the parts of a training that goes on, with the weights of its checkpoint."""
    config = CONFIG_MAPPING[plan.spec.model_type].from_dict(json.loads(kept["config"]))
    model = new_model(plan.spec, config, plan.job.task_type)
    model.load_state_dict(kept["model"])
    processor = make_processor(
        plan.spec,
        task_type=plan.job.task_type,
        image_size=plan.image_size,
        published=json.loads(kept["processor"]),
    )
    parts = finish(plan, model, processor)
    if parts.ema is not None:
        parts.ema.model.load_state_dict(kept["ema"])
    return parts


def finish(plan: Plan, model: Any, processor: Any) -> Parts:
    """Make the rest around a model and its processor."""
    hp = plan.hyperparameters
    if hp.freeze_backbone:
        _freeze_backbone(model)
    elif not plan.begins_with_weights:
        # Some freeze the first layers of a backbone, which they take for a trained one.
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(parameter.requires_grad or "backbone" in name)
    forward = forward_arguments(model, image_size=plan.image_size)
    _check_input(plan, model, forward)
    model.to(plan.device)
    return Parts(
        model=model,
        forward=forward,
        processor=processor,
        task=make_task(
            plan.content,
            hp,
            processor=processor,
            image_size=plan.image_size,
            device=plan.device,
            rank=plan.rank,
        ),
        ema=MovingAverage(model, decay=hp.ema_decay, warmup=hp.ema_warmup) if hp.ema else None,
    )


def _weights(plan: Plan, reporter: Reporter) -> Weights | None:
    """Return the weights a job begins with: another job's best, published ones, or none."""
    job = plan.job
    if job.initial_dir is not None:
        folder = job.initial_dir / "checkpoints" / "best"
        if not (folder / WEIGHTS).is_file():
            raise TrainingError(
                ErrorKind.WEIGHTS_MISSING,
                f"job {job.initial_job_id} has left no weights at {folder / WEIGHTS}",
                hint="Begin with a job that has completed an epoch and whose files are kept.",
            )
        reporter.log(f"beginning with the best weights of job {job.initial_job_id}")
        return read_weights(folder)
    return _published(plan, reporter) if job.pretrained else None


def _published(plan: Plan, reporter: Reporter) -> Weights:
    """Return published weights, which rank 0 downloads. Raises StoppedMeanwhile on all ranks."""
    stop = None
    if plan.rank.number == 0:
        try:
            weights = pretrained_weights(plan.job, plan.spec, reporter)
        except StoppedMeanwhile as asked:
            stop = asked.reason
    stop = plan.rank.agree(stop)
    if stop is not None:
        raise StoppedMeanwhile(stop)
    return weights if plan.rank.number == 0 else pretrained_weights(plan.job, plan.spec, reporter)


def _model(plan: Plan, weights: Weights | None, reporter: Reporter) -> Any:
    job, content = plan.job, plan.content
    config = make_config(
        plan.spec,
        task_type=job.task_type,
        classes=content.classes,
        image_size=plan.spec.image_size if weights else plan.image_size,
        multi_label=content.multi_label,
        published=weights.config if weights else None,
    )
    if weights is None:
        return new_model(plan.spec, config, job.task_type)
    kind = model_class(config, job.task_type)
    try:
        model, told = kind.from_pretrained(
            weights.folder,
            config=config,
            ignore_mismatched_sizes=True,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
            dtype=torch.float32,
        )
    except ImportError as error:
        raise needs_package(plan.spec, error) from error
    except Exception as error:  # a damaged file leads the reader to raise anything
        if is_out_of_memory(error):
            raise
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"weights '{weights.folder / WEIGHTS}' cannot be loaded into {plan.spec.name}: "
            f"{str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}",
            hint="They are damaged or belong to another model; replace them.",
        ) from error
    _check_loaded(model, told, weights=weights, reporter=reporter)
    _tell_other_classes(weights, content.classes, reporter=reporter)
    return model


def _tell_other_classes(weights: Weights, classes: Sequence[str], *, reporter: Reporter) -> None:
    """Say that a head of as many classes was kept, though they are others or in another order."""
    names = (weights.config or {}).get("id2label")
    if not isinstance(names, dict) or len(names) != len(classes):
        return
    before = [str(names.get(str(i))) for i in range(len(classes))]
    if before != list(classes):
        listed = ", ".join(before[:5]) + (", …" if len(before) > 5 else "")
        reporter.log(f"the head begins with the weights of as many other classes: {listed}")


def _check_loaded(model: Any, told: Any, *, weights: Weights, reporter: Reporter) -> None:
    """Refuse a model much of which is still random: the file is of another one."""
    random_names = {*told["missing_keys"], *(entry[0] for entry in told["mismatched_keys"])}
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    new = {name: sizes[name] for name in random_names if name in sizes and not _HEAD.search(name)}
    names = ", ".join(sorted(new)[:3]) + (", …" if len(new) > 3 else "")
    if sum(new.values()) > _LARGEST_NEW_SHARE * sum(sizes.values()):
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"weights '{weights.folder / WEIGHTS}' lack {len(new)} of the model's weights: {names}",
            hint="They seem to belong to another model; replace them.",
        )
    reporter.log(f"weights that begin at random beside the head: {names or 'none'}")


@torch.no_grad()
def _check_input(plan: Plan, model: Any, forward: dict[str, Any]) -> None:
    """Put one empty image through a model, so that a wrong size is told before data is read."""
    size = plan.image_size
    try:
        outputs = model.eval()(pixel_values=torch.zeros(1, 3, size, size), **forward)
    except (AssertionError, ValueError, RuntimeError, IndexError, ZeroDivisionError) as error:
        if is_out_of_memory(error):
            raise
        raise TrainingError(
            ErrorKind.UNSUPPORTED,
            f"{plan.spec.name} does not take images of {size} pixels: "
            f"{str(error).strip().splitlines()[0]}",
            hint=f"Leave the image size to the model's own, {plan.spec.image_size}.",
        ) from error
    if plan.job.task_type != TaskType.OBJECT_DETECTION:
        assert outputs.logits.shape[1] == len(plan.content.classes)


def _freeze_backbone(model: Any) -> None:
    """Leave only what turns features into answers to be trained."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(_in_head(model, name))
    if not any(p.requires_grad for p in model.parameters()):
        raise TrainingError(
            ErrorKind.UNSUPPORTED,
            f"{type(model).__name__} has no head apart from its backbone",
            hint="Set freeze_backbone off.",
        )


def _in_head(model: Any, name: str) -> bool:
    """Tell whether a parameter is part of the head: of detectors, all but the image's features."""
    if hasattr(model.config, "backbone_config") and model.config.backbone_config is not None:
        return ".backbone." not in f".{name}"
    prefix = getattr(model, "base_model_prefix", "")
    return not name.startswith(f"{prefix}.")


def set_training(model: Any, *, frozen_backbone: bool) -> None:
    """Keep the batch statistics of a frozen backbone; to be called once the model is training."""
    if frozen_backbone:
        for module in model.modules():
            if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
                module.eval()


def parameter_groups(plan: Plan, model: Any, *, decayed: set[str]) -> list[dict[str, Any]]:
    """Return the optimizer's groups: by learning rate, and whether weights decay."""
    hp, rate = plan.hyperparameters, plan.job.learning_rate
    factor = _rate_factors(plan, model)
    groups: dict[tuple[float, bool], list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((factor(name), name in decayed), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": rate * scale,
            "weight_decay": hp.weight_decay if decays else 0.0,
        }
        for (scale, decays), parameters in sorted(groups.items(), key=lambda g: g[0], reverse=True)
    ]


def _rate_factors(plan: Plan, model: Any) -> Callable[[str], float]:
    hp = plan.hyperparameters
    layers = {layer: i for i, layer in enumerate(dict.fromkeys(_layers(model)))}

    def factor(name: str) -> float:
        in_head = _in_head(model, name)
        scale = 1.0 if in_head else hp.backbone_learning_rate
        if hp.layer_decay is not None and not in_head:
            scale *= hp.layer_decay ** (len(layers) - layers[layer_of(name)])
        return scale

    return factor


def _layers(model: Any) -> Iterator[str]:
    for name, _ in model.named_parameters():
        if not _in_head(model, name):
            yield layer_of(name)


def layer_of(name: str) -> str:
    """Return what names the layer of a parameter: all up to its second number.

    ``vit.encoder.layer.3.attention.…`` is of ``vit.encoder.layer.3``, and
    ``resnet.encoder.stages.2.layers.1.layer.0.…`` of ``resnet.encoder.stages.2.layers.1``.
    """
    parts = name.split(".")
    numbers = [i for i, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[:2][-1] + 1] if numbers else parts[:2])
