"""What can be trained here, and on what."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from adapters import framework_version, installed_frameworks, known_frameworks
from adapters.frameworks import broken_plugins
from modelyard.checks import Finding, ok, problem, warning
from modelyard.gpus import choose_devices, list_gpus
from modelyard.settings import Settings

TORCH_SECONDS = 120

# In a process of its own: it is slow, may crash, and has no place in this one.
_PROBE = """
import json, torch, torchvision
torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
print(json.dumps({"torch": torch.__version__, "torchvision": torchvision.__version__,
                  "cuda": torch.version.cuda, "gpus": gpus}))
"""


def installed(settings: Settings) -> Iterator[Finding]:
    """Look at the frameworks: those that are asked for, or all that are known."""
    here = installed_frameworks()
    for name in settings.frameworks or known_frameworks():
        remedy = f"pip install -r requirements/{name}.txt"
        if name in here:
            yield ok(name, framework_version(name) or "installed")
        elif name not in known_frameworks():
            known = ", ".join(known_frameworks())
            yield problem(name, "no such framework", remedy=f"MODELYARD_FRAMEWORKS knows: {known}")
        elif settings.frameworks:
            yield problem(name, "asked for, but not installed", remedy=remedy)
        else:
            yield warning(name, "not installed: its jobs need another worker", remedy=remedy)
    for name, reason in broken_plugins().items():
        yield problem(name, f"its package cannot be used: {reason}", remedy="mend or uninstall it")


def torch_and_gpu(settings: Settings) -> Iterator[Finding]:
    """Look at torch, and whether it sees the GPUs that the driver shows."""
    if importlib.util.find_spec("torch") is None:
        return
    probe = _probe_torch()
    if isinstance(probe, str):
        remedy = (
            "install the pair of requirements/constraints.txt: pip install -r requirements/timm.txt"
        )
        yield problem("torch", f"does not work: {probe}", remedy=remedy)
        return
    yield ok("torch", f"{probe['torch']} with torchvision {probe['torchvision']}")
    yield from _gpus(settings, seen_by_torch=probe["gpus"], cuda=probe["cuda"])


def _gpus(settings: Settings, *, seen_by_torch: list[str], cuda: str | None) -> Iterator[Finding]:
    gpus = list_gpus()
    for index in settings.gpus or ():
        if index not in [gpu.index for gpu in gpus]:
            remedy = "set MODELYARD_GPUS to numbers that nvidia-smi shows, or leave it out"
            yield problem("gpu", f"GPU {index} is not on this host", remedy=remedy)
    if not gpus:
        yield ok("gpu", "none: jobs train on the processors")
    elif not seen_by_torch:
        build = f"is built for CUDA {cuda}" if cuda else "is built without CUDA"
        remedy = "update the driver, or install a torch that fits it"
        yield problem("gpu", f"nvidia-smi shows {len(gpus)}, but torch {build}", remedy=remedy)
    for gpu in gpus if seen_by_torch else ():
        used = f"{gpu.memory_used:,} of {gpu.memory:,} MiB in use"
        yield ok("gpu", f"{gpu.index}: {gpu.name}, {used}")
    if gpus and seen_by_torch and settings.gpus_per_slot > 1:
        yield _slots(settings, present=[gpu.index for gpu in gpus])


def _slots(settings: Settings, *, present: list[int]) -> Finding:
    """Look at how GPUs are shared out, where a slot is to have several."""
    usable = present if settings.gpus is None else list(settings.gpus)
    remedy = "set MODELYARD_GPUS_PER_SLOT to a number that divides them"
    try:
        slots = choose_devices(settings.gpus, per_slot=settings.gpus_per_slot)
    except ValueError as error:
        return problem("slots", str(error), remedy=remedy)
    shared = "; ".join(slots)
    if left := len(usable) % settings.gpus_per_slot:
        return warning("slots", f"{shared}; GPUs left over: {left}", remedy=remedy)
    return ok("slots", shared)


def _probe_torch() -> dict[str, Any] | str:
    """Return what torch says of itself, or the last line of its failure."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE],
            capture_output=True, text=True, timeout=TORCH_SECONDS, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"its import took longer than {TORCH_SECONDS} s"
    if done.returncode != 0:
        return (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
