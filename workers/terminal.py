"""What a person at a terminal sees of a job in the foreground."""

from __future__ import annotations

import json
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from adapters.contract import Result
from adapters.wire import Event, EventType, Outcome
from workers.supervisor import Ending

EXIT_FAILED = 1
EXIT_STOPPED = 3


class Terminal:
    """A progress bar, a line an epoch, and the child's own lines above it."""

    def __init__(self, epochs: int) -> None:
        self._console = Console()
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[pace]}"),
            TimeRemainingColumn(),
            console=self._console,
        )
        self._bar = self._progress.add_task(f"epoch 1/{epochs}", total=100.0, pace="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, event: Event) -> None:
        """Show an event."""
        data = event.data
        if event.type == EventType.PROGRESS:
            pace = data["images_per_second"]
            self._progress.update(
                self._bar,
                completed=data["percent"],
                description=f"epoch {data['epoch']}/{data['epochs']}",
                pace=f"{pace:.0f} images/s" if pace else "",
            )
        elif event.type == EventType.METRICS:
            values = "  ".join(f"{name} {value:.4g}" for name, value in data["values"].items())
            self._console.print(f"epoch {data['epoch']}: {values}", highlight=False)
        elif event.type == EventType.LOG:
            for line in data["lines"]:
                self._console.print(line, highlight=False, markup=False, style="dim")

    def conclude(self, ending: Ending) -> int:
        """Say how it ended and return the exit status that says the same."""
        if ending.outcome == Outcome.COMPLETED:
            assert ending.result is not None
            self._console.print(_summary(ending.result), highlight=False)
            return 0
        if ending.outcome == Outcome.FAILED:
            error = ending.error or {}
            self._console.print(f"failed: {error.get('message')} {error.get('hint')}", style="red")
            return EXIT_FAILED
        self._console.print("stopped; the same command with --resume goes on from the checkpoint")
        return EXIT_STOPPED


def _summary(result: Any) -> str:
    known = Result(**{**result, "best": None})
    accuracy = "" if known.accuracy is None else f", accuracy {known.accuracy:.4f}"
    epochs = "1 epoch" if known.epochs_completed == 1 else f"{known.epochs_completed} epochs"
    return f"completed: {epochs}{accuracy}; best: {known.best_model_path}"


def assignment(text: str) -> tuple[str, Any]:
    """Read NAME=VALUE, the value being JSON or text. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"--set {text}: write it as NAME=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
