"""The model card: what a trained model is, what it was made of, how good it is, how to load it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from adapters import framework_version
from adapters.contract import AdapterError, Result, TaskType, TrainingJob
from adapters.data.content import Content
from adapters.evaluation import report
from adapters.files import write_atomically
from adapters.frameworks import framework_info
from modelyard import __version__

FILE = "model_card.md"

_MOST_COUNTED = 20_000  # images of a split whose objects are counted
_MOST_CLASSES = 200  # rows of the table of classes
_GIT_SECONDS = 10

# What a licence asks of those who use or pass on the model. No advice of a lawyer's.
_LICENCES = {
    "AGPL-3.0": (
        "Ultralytics holds that models trained with its library fall under AGPL-3.0 as the "
        "library does: whoever passes on this model, or offers it over a network, has to offer "
        "the whole source of that program under AGPL-3.0, or needs Ultralytics' Enterprise "
        "licence."
    ),
    "Apache-2.0": (
        "The library may be used and passed on freely with its notice. Pretrained weights can "
        "have licences of their own: see the model's page."
    ),
}

_LOADING = {
    "timm": """\
import json
import timm
from safetensors import safe_open

path = "{path}"  # below the job's output folder
with safe_open(path, "pt") as file:
    about = json.loads(file.metadata()["modelyard"])
model = timm.create_model(
    about["model_name"], num_classes=len(about["classes"]), checkpoint_path=path,
    **about["model_arguments"],
).eval()
transform = timm.data.create_transform(**about["data_config"], is_training=False)
""",
    "ultralytics": """\
from ultralytics import YOLO

model = YOLO("{path}")  # below the job's output folder
results = model.predict("image.jpg")
""",
    "huggingface": """\
from transformers import AutoImageProcessor, {auto_model}

path = "{path}"  # below the job's output folder
processor = AutoImageProcessor.from_pretrained(path)
model = {auto_model}.from_pretrained(path).eval()
""",
}
_AUTO_MODELS = {
    TaskType.IMAGE_CLASSIFICATION: "AutoModelForImageClassification",
    TaskType.OBJECT_DETECTION: "AutoModelForObjectDetection",
    TaskType.SEMANTIC_SEGMENTATION: "AutoModelForSemanticSegmentation",
}
_LOADING_ANY = """\
from adapters import get_adapter

predictor = get_adapter("{framework}").load(job)  # a placed adapters.contract.TrainingJob
"""


@dataclass(frozen=True)
class Card:
    """All that a model card tells of."""

    job: TrainingJob
    result: Result
    content: Content | None  # None: the data set cannot be read any more
    evaluated: bool
    decisions: Mapping[str, tuple[float | str, str]]
    metrics: Mapping[int, Mapping[str, float]]  # by epoch, of this attempt
    training_seconds: float  # of this attempt

    def write(self) -> Path:
        """Write the card below the job's output folder and return its path."""
        assert self.job.output_dir is not None
        path = self.job.output_dir / FILE
        text = self.text()
        write_atomically(path, lambda stream: stream.write(text.encode(errors="replace")))
        return path

    def text(self) -> str:
        """Return the card as Markdown."""
        parts = (
            self._what(), self._use(), self._data(), self._training(), self._decided(),
            self._metrics(), self._loading(), self._made_with(), self._licence(),
        )  # fmt: skip
        return "\n".join(line for part in parts for line in part)

    def _what(self) -> Iterator[str]:
        job = self.job
        task = str(job.task_type).replace("_", " ")
        yield f"# {plain(job.model_name)}: {task}"
        yield ""
        yield (
            f"Trained by Modelyard as job {job.id}, attempt {job.attempt}, with "
            f"{plain(framework_info(job.framework).title)}"
            + (", from pretrained weights." if job.pretrained else ".")
            + (
                f" It began with the best weights of job {job.initial_job_id}."
                if job.initial_job_id is not None
                else ""
            )
        )
        yield ""

    def _use(self) -> Iterator[str]:
        yield "## Intended use"
        yield ""
        yield "*To be filled in by a person: what the model is for, what it must not be used for,"
        yield "who is affected where it is wrong.*"
        yield ""

    def _data(self) -> Iterator[str]:
        job = self.job
        yield "## Data"
        yield ""
        yield from _table(
            ("", ""),
            [
                ("Name", job.dataset_path.name),
                ("Path", str(job.dataset_path)),
                ("Format", str(job.dataset_format)),
                ("Fingerprint", job.dataset_fingerprint or "not recorded"),
                ("Split", self._split_rule()),
            ],
        )
        if self.content is None:
            yield "The data set could not be read when this card was written."
            yield ""
            return
        yield from self._classes(self.content)

    def _split_rule(self) -> str:
        if self.content is None or self.content.split_rule is None:
            return "as the data set came"
        return self.content.split_rule.in_words()

    def _classes(self, content: Content) -> Iterator[str]:
        splits = {name: samples for name, samples in content.splits.items() if samples}
        counts, what, cut = count_classes(content)
        rows = [
            (name, *(str(counts[split][i]) for split in splits))
            for i, name in enumerate(content.classes[:_MOST_CLASSES])
        ]
        rows.append(("All images", *(str(len(samples)) for samples in splits.values())))
        yield from _table((f"Class ({what})", *splits), rows)
        if len(content.classes) > _MOST_CLASSES:
            yield f"The first {_MOST_CLASSES} of {len(content.classes)} classes are shown."
            yield ""
        if cut:
            yield f"Counted in the first {_MOST_COUNTED} images of each split."
            yield ""

    def _training(self) -> Iterator[str]:
        job = self.job
        yield "## Training"
        yield ""
        batch = job.batch_size or "the largest that fits"
        rows = [
            ("Epochs", f"{self.result.epochs_completed} of {job.epochs}"),
            ("Batch size", str(batch)),
            ("Learning rate", f"{job.learning_rate:g}"),
            ("Optimizer", job.optimizer or "the adapter's default"),
            ("Image size", f"{job.image_size} px" if job.image_size else "the model's own"),
            ("Seed", str(job.seed)),
            ("Training time", f"{self.training_seconds:.0f} s in attempt {job.attempt}"),
            ("Device", _device(job.compute_device)),
        ]
        yield from _table(("", ""), rows)
        yield "### Hyperparameters"
        yield ""
        yield from _table(("Name", "Value", ""), _hyperparameters(job))

    def _decided(self) -> Iterator[str]:
        if not self.decisions:
            return
        yield "### Chosen by the worker"
        yield ""
        rows = [(name, str(value), why) for name, (value, why) in self.decisions.items()]
        yield from _table(("Name", "Value", "Why"), rows)

    def _metrics(self) -> Iterator[str]:
        yield "## Metrics"
        yield ""
        best = self.result.best
        if best is None:
            yield "No epoch was measured."
        else:
            yield f"Best epoch: {best.epoch}, by {plain(best.metric)} {best.value:.4f}."
        yield ""
        if best is not None and best.epoch in self.metrics:
            values = sorted(self.metrics[best.epoch].items())
            yield from _table(
                (f"Epoch {best.epoch}", "Value"), [(n, f"{value:.6g}") for n, value in values]
            )
        yield from self._evaluation()

    def _evaluation(self) -> Iterator[str]:
        assert self.job.output_dir is not None
        if not self.evaluated:
            yield "The best model was not evaluated."
            yield ""
            return
        whole = json.loads((self.job.output_dir / report.FILE).read_text())
        for split, told in whole["splits"].items():
            yield f"### Evaluation of the best model: {plain(split)}"
            yield ""
            rows = [(name, f"{value:.4f}") for name, value in told["metrics"].items()]
            yield from _table((f"{told['images']} of {told['images_in_split']} images", ""), rows)
            columns = told["columns"]
            per_class = [
                (row["name"], str(row["support"]), *(_short(row[column]) for column in columns))
                for row in told["classes"][:_MOST_CLASSES]
            ]
            yield from _table(("Class", "Support", *columns), per_class)

    def _loading(self) -> Iterator[str]:
        job = self.job
        assert job.output_dir is not None
        path = self.result.best_model_path or "checkpoints/best"
        if Path(path).is_relative_to(job.output_dir):
            path = Path(path).relative_to(job.output_dir).as_posix()
        template = _LOADING.get(job.framework, _LOADING_ANY)
        code = template.format(
            path=path,
            framework=job.framework,
            auto_model=_AUTO_MODELS.get(job.task_type, "AutoModel"),
        )
        yield "## How to load it"
        yield ""
        yield "```python"
        yield from code.splitlines()
        yield "```"
        yield ""

    def _made_with(self) -> Iterator[str]:
        yield "## Made with"
        yield ""
        rows = [
            ("Modelyard", modelyard_version()),
            (self.job.framework, framework_version(self.job.framework) or "unknown"),
            ("torch", _package_version("torch")),
            ("Python", platform.python_version()),
            ("Platform", platform.platform()),
        ]
        yield from _table(("", "Version"), rows)

    def _licence(self) -> Iterator[str]:
        info = framework_info(self.job.framework)
        yield "## Licence"
        yield ""
        yield f"{plain(info.title)} is under {plain(info.licence)}. " + _LICENCES.get(
            info.licence, "Read its licence before you pass the model on."
        )
        yield "The data may be under a licence of its own."
        yield ""


def plain(text: str) -> str:
    """Return a text such that Markdown shows it as it is, in one line."""
    one_line = " ".join(str(text).split())
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", one_line)


def count_classes(content: Content) -> tuple[dict[str, list[int]], str, bool]:
    """Return what there is of each class in each split, what was counted, and whether in part."""
    if content.task_type == TaskType.SEMANTIC_SEGMENTATION:
        what = "images with it"
    elif content.task_type == TaskType.IMAGE_CLASSIFICATION:
        what = "images"
    else:
        what = "objects"
    counts: dict[str, list[int]] = {}
    cut = False
    for split, samples in content.splits.items():
        counts[split] = [0] * len(content.classes)
        cut = cut or len(samples) > _MOST_COUNTED
        for sample in samples[:_MOST_COUNTED]:
            for class_id in _classes_of(content, sample):
                counts[split][class_id] += 1
    return counts, what, cut


def modelyard_version() -> str:
    """Return Modelyard's version and, where it runs from a checkout, its git revision."""
    root = Path(__file__).resolve().parents[1]
    if not (root / ".git").exists():
        return __version__
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        told = subprocess.run(
            [*command, "--exclude=*"],
            capture_output=True, text=True, timeout=_GIT_SECONDS, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}, revision {told.stdout.strip()}"


def _classes_of(content: Content, sample: Any) -> Sequence[int]:
    try:
        if content.task_type == TaskType.IMAGE_CLASSIFICATION:
            return sample.classes
        if content.task_type == TaskType.SEMANTIC_SEGMENTATION:
            seen = set(content.mask(sample).ravel().tolist())
            return [class_id for class_id in seen if class_id < len(content.classes)]
        return [thing.class_id for thing in content.objects(sample)]
    except AdapterError:
        return []  # an annotation that was spoilt since it was checked


def _hyperparameters(job: TrainingJob) -> list[tuple[str, str, str]]:
    schema = framework_info(job.framework).hyperparameters
    try:
        values = schema.model_validate(dict(job.hyperparameters)).model_dump(mode="json")
    except ValueError:  # made by another version of the schema
        values = dict(job.hyperparameters)
    return [
        (name, json.dumps(value), "given" if name in job.hyperparameters else "default")
        for name, value in values.items()
    ]


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for row in (head, ["---"] * len(head), *rows):
        cells = row if row and row[0] == "---" else [plain(cell) for cell in row]
        yield f"| {' | '.join(cells)} |"
    yield ""


def _short(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _device(compute_device: str) -> str:
    torch = sys.modules.get("torch")
    if compute_device.startswith("cuda") and torch is not None and torch.cuda.is_available():
        return f"{compute_device}, {torch.cuda.get_device_name()}"
    threads = "" if torch is None else f", {torch.get_num_threads()} threads"
    return f"{compute_device}, {platform.machine()}, {os.cpu_count()} cores{threads}"


def _package_version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
