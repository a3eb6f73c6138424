"""A job's progress in the terminal: a live bar, or plain lines where there is no terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from modelyard.client import Json, StreamEvent

# What an epoch is judged by, in the order of preference: top-1 of timm, mAP50 of Ultralytics.
_ACCURACY = ("top1", "map50")
_LOSSES = (("loss", "train_loss"), ("val loss", "val_loss"))


class JobView:
    """Shows the events of one job; use it as a context manager."""

    def __init__(self, console: Console, job: Json) -> None:
        self._console = console
        self._epochs = int(job["epochs"])
        self._pace: Json = {}  # of the latest progress event
        self._last_status = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[pace]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task(f"job {job['id']}", total=100.0, pace="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()

    def show(self, event: StreamEvent) -> None:
        """Show one event; types that say nothing new in a terminal are passed over."""
        if event.event in ("status", "snapshot"):
            self._show_status(event.data.get("job", event.data))
        elif event.event == "progress":
            self._show_progress(event.data)
        elif event.event == "metrics":
            self._show_metrics(event.data)

    def _show_status(self, job: Json) -> None:
        if job["status"] != self._last_status:
            self._last_status = job["status"]
            self._line(f"job is {job['status']}")

    def _show_progress(self, progress: Json) -> None:
        self._pace = progress
        self._bar.update(
            self._task,
            completed=progress.get("percent") or 0.0,
            description=f"epoch {progress['epoch']}/{self._epochs}",
            pace=pace(progress),
        )

    def _show_metrics(self, metrics: Json) -> None:
        self._line(epoch_line(metrics, epochs=self._epochs, progress=self._pace))

    def _line(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)


def epoch_line(metrics: Json, *, epochs: int, progress: Json) -> str:
    """Return an epoch's line: loss, accuracy, images a second and the time left."""
    values = metrics["values"]
    parts = [f"epoch {metrics['epoch']}/{epochs}"]
    parts += [f"{name} {values[key]:.4f}" for name, key in _LOSSES if key in values]
    parts += [f"accuracy {values[key]:.4f}" for key in _ACCURACY if key in values][:1]
    speed = values.get("images_per_second", progress.get("images_per_second"))
    return "  ".join(
        part for part in (*parts, pace({**progress, "images_per_second": speed})) if part
    )


def pace(progress: Json) -> str:
    """Return images a second and the time left, as far as they are known."""
    parts = []
    if (speed := progress.get("images_per_second")) is not None:
        parts.append(f"{speed:,.0f} images/s")
    if (left := progress.get("eta_seconds")) is not None:
        parts.append(f"{duration(left)} left")
    return "  ".join(parts)


def duration(seconds: float) -> str:
    """Return a duration as a person says it: 42 s, 3 min 5 s, 2 h 10 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
