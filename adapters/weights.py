"""Where pretrained weights lie: one folder a framework, one file or folder a model.

    <weights folder>/timm/resnet18.safetensors
    <weights folder>/ultralytics/yolo11n.pt
    <weights folder>/huggingface/resnet-18/model.safetensors

No name that a person sends becomes part of a path unless it is a plain file name.
"""

from __future__ import annotations

import re
from pathlib import Path

from adapters.frameworks import FrameworkInfo, all_frameworks

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def weights_file_name(framework: str, model_name: str) -> str:
    """Return the file, relative to the weights folder, that a model's weights are to be put in.

    Raises ValueError where a name is not a plain file name.
    """
    for name in (framework, model_name):
        if not _PLAIN_NAME.fullmatch(name):
            raise ValueError(f"'{name}' cannot name weights: letters, digits, '.', '_', '-' only")
    suffix = _suffixes(framework)[0]
    stem = model_name.removesuffix(suffix)  # 'yolo11n.pt' and 'yolo11n' are the same model
    return f"{framework}/{stem}{suffix}"


def find_weights(weights_dir: Path, framework: str, model_name: str) -> Path | None:
    """Return the file of a model's pretrained weights, or None where there is none."""
    try:
        preferred = weights_file_name(framework, model_name)
    except ValueError:
        return None
    suffixes = _suffixes(framework)
    stem = preferred.removesuffix(suffixes[0])
    for suffix in suffixes:
        candidate = weights_dir / (stem + suffix)
        if candidate.is_file():
            return candidate
    return None


def _suffixes(framework: str) -> tuple[str, ...]:
    return all_frameworks().get(framework, FrameworkInfo).weights_suffixes
