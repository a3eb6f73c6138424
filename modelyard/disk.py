"""How much files take, how much room there is, and how both read."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

LOW_BYTES = 10 * 10**9  # a volume with less left is about to be full: a checkpoint may take a GB
LOW_SHARE = 0.05


@dataclass(frozen=True)
class Room:
    """What is left of the volume that a folder lies on."""

    volume: int  # tells it from this host's other volumes
    total: int  # bytes
    free: int  # bytes that this user may still write

    @property
    def low(self) -> bool:
        """Whether it is about to be full."""
        return self.free < max(LOW_BYTES, LOW_SHARE * self.total)


def room(folder: Path) -> Room | None:
    """Return what is left where a folder lies or would be made; None where nobody can tell."""
    try:
        there = existing(folder)
        volume, usage = there.stat().st_dev, shutil.disk_usage(there)
    except OSError:
        return None
    return Room(volume=volume, total=usage.total, free=usage.free)


def existing(folder: Path) -> Path:
    """Return a folder, or where it is not there yet the nearest one above it that is."""
    return next(path for path in (folder, *folder.parents) if path.exists())


def tree_bytes(path: Path) -> int:
    """Return the sizes of all files below a folder, or of a file; links count as nothing."""
    try:
        if path.is_symlink():
            return 0
        if path.is_file():
            return path.stat().st_size
    except OSError:
        return 0
    return sum(_entry_bytes(entry) for entry in _scan(path))


def readable(size: int) -> str:
    """Return a size as people read it: '1.2 GB', in the units of the settings."""
    value, units = float(size), ["bytes", "kB", "MB", "GB", "TB"]
    while value >= 999.5 and len(units) > 1:
        value /= 1000
        units.pop(0)
    if size == 1:
        return "1 byte"
    return f"{value:,.0f} {units[0]}" if value >= 999.5 else f"{value:.3g} {units[0]}"


def _entry_bytes(entry: os.DirEntry[str]) -> int:
    try:
        if entry.is_symlink():
            return 0
        if entry.is_dir():
            return sum(_entry_bytes(inner) for inner in _scan(Path(entry.path)))
        return entry.stat().st_size
    except OSError:
        return 0  # gone meanwhile


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []
