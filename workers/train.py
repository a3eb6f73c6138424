"""`python -m workers.train`: one job in the foreground, with no service at all.

By hand it takes the job from its arguments and draws a progress bar: the way to debug an
adapter. With ``--stdio`` the recorder of `subprocess` mode drives it (see workers.local).
Either way it is the same supervisor and the same child that a worker has.
"""

from __future__ import annotations

import dataclasses
import logging
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
from pydantic import ValidationError

from adapters import known_frameworks
from adapters.contract import AdapterError, DatasetFormat, TaskType, TrainingJob
from adapters.data.describe import describe
from adapters.frameworks import framework_info
from adapters.wire import EventType
from modelyard.gpus import choose_devices
from modelyard.settings import Settings, SettingsError, load_settings
from workers import local, temporary
from workers.attempt import place, run_attempt
from workers.journal import Journal
from workers.stopping import Stop, StopRequest
from workers.template import Template
from workers.terminal import Terminal, assignment


@click.command()
@click.option("--stdio", is_flag=True, hidden=True)
@click.option("--framework", type=click.Choice(known_frameworks()))
@click.option("--model", "model_name", help="A name from the framework's catalog.")
@click.option("--dataset", type=click.Path(path_type=Path), help="The data set's folder.")
@click.option("--format", "dataset_format", type=click.Choice([str(f) for f in DatasetFormat]))
@click.option("--task", "task_type", type=click.Choice([str(t) for t in TaskType]))
@click.option("--epochs", type=click.IntRange(1, 10_000), default=3, show_default=True)
@click.option(
    "--batch-size",
    type=click.IntRange(0, 4096),
    default=32,
    show_default=True,
    help="0: the largest that fits.",
)
@click.option(
    "--learning-rate", type=click.FloatRange(0, 10, min_open=True), default=1e-3, show_default=True
)
@click.option("--optimizer")
@click.option("--image-size", type=click.IntRange(16, 4096))
@click.option("--pretrained", is_flag=True, help="Begin with pretrained weights.")
@click.option(
    "--initial",
    "--from-job",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="Begin with the best weights in this output folder of another job.",
)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--device", type=click.Choice(["auto", "cpu", "gpu"]), default="auto")
@click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="A hyperparameter; the value is JSON or text. May be repeated.",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    default=Path("outputs/train"),
    show_default=True,
    help="Folder of checkpoints and events.",
)
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the output folder.")
def main(
    stdio: bool,
    assignments: tuple[str, ...],
    output: Path,
    initial: Path | None,
    **options: Any,
) -> None:
    """Train one job in the foreground, with no service."""
    try:
        temporary.claim()
        if stdio:
            sys.exit(local.run_stdio())
        logging.basicConfig(level=logging.WARNING)
        settings = load_settings()
        job = _job_from(assignments=assignments, **options)
        sys.exit(_train_in_terminal(job, settings, output=output, initial=initial))
    except ValidationError as error:
        wrong = "; ".join(f"{e['loc'][0]}: {e['msg']}" for e in error.errors())
        raise click.ClickException(f"hyperparameters: {wrong}") from error
    except (AdapterError, SettingsError, ValueError) as error:
        raise click.ClickException(str(error)) from error


def _job_from(*, assignments: tuple[str, ...], dataset: Path | None, **options: Any) -> TrainingJob:
    for name in ("framework", "model_name"):
        if options[name] is None:
            raise ValueError(f"--{name.removesuffix('_name')} is needed")
    if dataset is None:
        raise ValueError("--dataset is needed")
    wanted_format = options.pop("dataset_format")
    wanted_task = options.pop("task_type")
    description = describe(
        dataset.resolve(),
        format=wanted_format and DatasetFormat(wanted_format),
        task_type=wanted_task and TaskType(wanted_task),
    )
    for problem in description.problems:
        click.echo(f"{problem.severity}: {problem.file or ''} {problem.message}", err=True)
    if not description.valid:
        raise ValueError(f"the data set {dataset} has errors; see above")
    schema = framework_info(options["framework"]).hyperparameters
    given = dict(assignment(text) for text in assignments)
    return TrainingJob(
        id=0,
        attempt=1,
        dataset_path=dataset.resolve(),
        dataset_format=description.format,
        task_type=description.task_type,
        hyperparameters=schema.model_validate(given).model_dump(exclude_unset=True),
        **options,
    )


def _train_in_terminal(
    job: TrainingJob, settings: Settings, *, output: Path, initial: Path | None
) -> int:
    placed = place(
        job,
        settings,
        output_dir=output.resolve(),
        device=choose_devices(settings.gpus, per_slot=settings.gpus_per_slot)[0],
        initial_dir=initial and initial.resolve(),
    )
    stop = StopRequest()
    # The first Ctrl-C asks for a checkpoint, the second kills.
    signal.signal(signal.SIGINT, lambda *_: stop.ask(Stop.KILL if stop.current else Stop.NOW))
    # Here the person at the terminal owns the data: its folder is allowed.
    settings = dataclasses.replace(settings, data_roots=(job.dataset_path,))
    journal = Journal(placed)
    with Terminal(job.epochs) as terminal:

        def sink(type: EventType, data: Mapping[str, Any]) -> None:
            terminal.show(journal.append(type, data))

        template = Template([job.framework], threads=settings.threads)
        ending = run_attempt(placed, template=template, settings=settings, sink=sink, stop=stop)
    journal.close()
    return terminal.conclude(ending)


if __name__ == "__main__":
    main()
