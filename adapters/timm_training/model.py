"""The model of a job: made by timm, begun with the weights it is to begin with, frozen in part."""

from __future__ import annotations

from typing import Any

import timm
import torch
from timm.data import resolve_data_config
from timm.models import group_parameters, is_model, resolve_model_input_args

from adapters.contract import ErrorKind, Reporter, TrainingError, TrainingJob
from adapters.failures import is_out_of_memory
from adapters.randomness import Stream, derive_seed, seed_everything
from adapters.timm_training.best import BEST, read_about
from adapters.timm_training.plan import Plan
from adapters.timm_training.pretrained import check_loaded, pretrained_file


def make_model(
    plan: Plan, reporter: Reporter, *, load_weights: bool
) -> tuple[torch.nn.Module, dict[str, Any]]:
    """Return a job's model, on the CPU, and how its images are made ready.

    Raises TrainingError where timm cannot make it or its first weights cannot be had.
    """
    check_name(plan.job.model_name)
    model = _create(plan)
    if load_weights and plan.job.initial_dir is not None:
        model = _begun_with_another_jobs(plan, model, reporter)
    elif load_weights and plan.job.pretrained:
        model = _pretrained(plan, model, reporter)
    data_config = resolve_data_config(_requested_size(plan.job), model=model)
    _check_input(plan, model, data_config)
    _freeze(plan, model)
    return model, data_config


def check_name(name: str) -> None:
    """Raise TrainingError(UNSUPPORTED) where timm has no model of that name.

    Only names of the registry: timm would also take 'local-dir:' and 'hf-hub:' addresses.
    """
    if not is_model(name):
        raise _unsupported(
            f"timm {timm.__version__} on this worker has no model '{name}'",
            hint="Pick a model of the catalog, or update timm on the worker.",
        )


def model_arguments(job: TrainingJob, data_config: dict[str, Any]) -> dict[str, Any]:
    """Return what timm.create_model needs besides the name to make the trained model again."""
    traits = resolve_model_input_args(
        job.model_name, {"input_size": tuple(data_config["input_size"])}
    )
    return {"img_size": list(traits["img_size"])} if "img_size" in traits else {}


def set_training(model: torch.nn.Module) -> None:
    """Put a model into training mode; what is frozen keeps its batch statistics, too."""
    model.train()
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            parameters = list(module.parameters())
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()


def first_output(output: Any) -> torch.Tensor:
    """Return the logits of a model's output; some add outputs of inner layers."""
    logits: torch.Tensor = output[0] if isinstance(output, tuple | list) else output
    return logits


def _pretrained(plan: Plan, fresh: torch.nn.Module, reporter: Reporter) -> torch.nn.Module:
    file = plan.rank.first(lambda: pretrained_file(plan.job, reporter))
    model = _create(plan, file=str(file))
    check_loaded(model, fresh, file=file, reporter=reporter)
    return model


def _begun_with_another_jobs(
    plan: Plan, fresh: torch.nn.Module, reporter: Reporter
) -> torch.nn.Module:
    """Return the model with the best weights of the job that this one begins with."""
    assert plan.job.initial_dir is not None
    file = plan.job.initial_dir / "checkpoints" / BEST
    about = read_about(file)
    if about.model_name != plan.job.model_name:
        raise TrainingError(
            ErrorKind.CHECKPOINT_INVALID,
            f"job {plan.job.initial_job_id} trained {about.model_name}, and this job trains "
            f"{plan.job.model_name}: '{file}' cannot be its beginning",
            hint=f"Take {about.model_name} here, or begin with another job.",
        )
    same = about.classes == tuple(plan.data.classes)
    # timm leaves the classifier out where the numbers of classes differ; so it does for -1.
    model = _create(plan, file=str(file), num_classes=len(about.classes) if same else -1)
    head = (
        "its classifier included"
        if same
        else (
            f"with a new classifier: it has {len(about.classes)} classes, here are "
            f"{len(plan.data.classes)}, or others"
        )
    )
    reporter.log(f"beginning with the weights of epoch {about.epoch} in '{file}', {head}")
    check_loaded(model, fresh, file=file, reporter=reporter)
    return model


def _create(plan: Plan, **overlay: Any) -> torch.nn.Module:
    """Return the model; ``overlay`` says which file its weights are in, else they are random."""
    job, hp = plan.job, plan.hyperparameters
    if overlay:
        overlay["custom_load"] = False
    try:
        arguments = resolve_model_input_args(
            job.model_name,
            _requested_size(job),
            num_classes=len(plan.data.classes),
            drop_rate=hp.drop_rate,
            drop_path_rate=hp.drop_path,
            pretrained_cfg_overlay=overlay or None,
        )
        # Seeded here, so that each call makes the same random weights.
        seed_everything(derive_seed(job.seed, Stream.MODEL))
        model: torch.nn.Module = timm.create_model(**arguments, pretrained=bool(overlay))
    except (RuntimeError, TypeError, AssertionError, ValueError, KeyError, OSError) as error:
        if overlay:
            raise TrainingError(
                ErrorKind.CHECKPOINT_INVALID,
                f"weights file '{overlay['file']}' cannot be loaded into {job.model_name}: "
                f"{str(error).strip().splitlines()[0]}",
                hint="It is damaged or belongs to another model; replace it.",
            ) from error
        if isinstance(error, RuntimeError | KeyError | OSError):
            raise
        raise _unsupported(
            f"{job.model_name} cannot be made with image size {job.image_size}, "
            f"drop_rate {hp.drop_rate} and drop_path {hp.drop_path}: {error}",
            hint="Leave these to the model's own, or take a multiple of its own image size.",
        ) from error
    return model


@torch.no_grad()
def _check_input(plan: Plan, model: torch.nn.Module, data_config: dict[str, Any]) -> None:
    """Put one empty image through a model, so that a wrong size is told before data is read."""
    name, size = plan.job.model_name, tuple(data_config["input_size"])
    try:
        output = model.eval()(torch.zeros(1, *size))
    except (AssertionError, ValueError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise _unsupported(
            f"{name} does not take images of {size[1]} x {size[2]} pixels: {error}",
            hint=f"Leave the image size to the model's own, {_own_size(model)}.",
        ) from error
    if getattr(output, "shape", None) != (1, len(plan.data.classes)):
        raise _unsupported(
            f"{name} gives features, not classes", hint="Pick a model of the catalog."
        )


def _own_size(model: torch.nn.Module) -> str:
    height, width = model.pretrained_cfg["input_size"][1:]  # type: ignore[index]
    return f"{height} x {width}"


def _requested_size(job: TrainingJob) -> dict[str, tuple[int, int, int]]:
    if job.image_size is None:
        return {}
    return {"input_size": (3, job.image_size, job.image_size)}


def _freeze(plan: Plan, model: torch.nn.Module) -> None:
    if plan.hyperparameters.freeze_backbone:
        model.requires_grad_(False)
        for parameter in _classifier(model):
            parameter.requires_grad_(True)
    elif plan.hyperparameters.freeze_stages:
        _freeze_stages(plan, model)


def _freeze_stages(plan: Plan, model: torch.nn.Module) -> None:
    """Freeze a model's first stages, as timm groups its parameters; the classifier's is none."""
    wanted, name = plan.hyperparameters.freeze_stages, plan.job.model_name
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise _unsupported(
            f"timm does not say which stages {name} has",
            hint="Leave out freeze_stages, or take freeze_backbone.",
        )
    groups = group_parameters(model, matcher(coarse=True))
    parameters = dict(model.named_parameters())
    head = {id(parameter) for parameter in _classifier(model)}
    stages = [g for g in groups.values() if not any(id(parameters[n]) in head for n in g)]
    if wanted > len(stages):
        raise _unsupported(
            f"freeze_stages is {wanted}, and {name} has {len(stages)} stages",
            hint=f"Take at most {len(stages)}.",
        )
    for parameter_name in (n for group in stages[:wanted] for n in group):
        parameters[parameter_name].requires_grad_(False)


def _classifier(model: torch.nn.Module) -> list[torch.nn.Parameter]:
    head = model.get_classifier()  # type: ignore[operator]
    modules = head if isinstance(head, tuple | list | torch.nn.ModuleList) else [head]
    return [parameter for module in modules for parameter in module.parameters()]


def _unsupported(message: str, *, hint: str) -> TrainingError:
    return TrainingError(ErrorKind.UNSUPPORTED, message, hint=hint)
