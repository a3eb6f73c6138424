"""A stand-in for the NVIDIA driver: an nvidia-smi on the path that says what a test wrote down.

No GPU has ever been behind it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

SCRIPT = """#!/bin/sh
echo >> "{folder}/calls"
case "$1" in
  --query-gpu=*) cat "{folder}/gpus" ;;
  --query-compute-apps=*) cat "{folder}/processes" ;;
esac
"""


@dataclass
class Driver:
    """GPUs of 24,000 MiB and the processes on them, as nvidia-smi is to list them."""

    folder: Path
    gpus: int = 2
    processes: dict[int, tuple[int, int]] = field(default_factory=dict)  # pid: GPU, MiB
    nameless: dict[int, int] = field(default_factory=dict)  # GPU: MiB that no process is named for

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        script = self.folder / "nvidia-smi"
        script.write_text(SCRIPT.format(folder=self.folder))
        script.chmod(0o755)
        self.tell()

    @property
    def path(self) -> str:
        """The PATH with this driver's nvidia-smi in front."""
        return f"{self.folder}:{os.environ['PATH']}"

    @property
    def calls(self) -> int:
        """How often nvidia-smi was asked so far."""
        calls = self.folder / "calls"
        return calls.stat().st_size if calls.exists() else 0

    def tell(self) -> None:
        """Have nvidia-smi say what is written down here now."""
        used = dict.fromkeys(range(self.gpus), 10) | self.nameless
        for gpu, memory in self.processes.values():
            used[gpu] += memory
        self._write("gpus", [f"{i}, Some GPU, 24000, {used[i]}, 0, GPU-{i}" for i in used])
        lines = [f"{pid}, {memory}, GPU-{gpu}" for pid, (gpu, memory) in self.processes.items()]
        self._write("processes", lines)

    def _write(self, name: str, lines: list[str]) -> None:
        # Whole or not at all: a worker asks at any moment.
        (self.folder / f".{name}").write_text("".join(f"{line}\n" for line in lines))
        (self.folder / f".{name}").rename(self.folder / name)
