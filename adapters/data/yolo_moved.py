"""The data.yaml and the lists of a YOLO data set, written anew so that they hold anywhere.

A yaml often names its folder by an absolute path, and lists their images; both mean nothing on
another host. What is written here names the same images and classes in the same order, relative to
the data set's folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import yaml

from adapters.data.description import DatasetError
from adapters.data.files import relative_name
from adapters.data.yolo import MAX_LIST_BYTES, Place, YoloData
from adapters.data.yolo_yaml import MAX_YAML_BYTES


def moved_documents(data: YoloData) -> dict[str, bytes]:
    """Return yaml and lists by their names in the data set's folder.

    Raises DatasetError where one cannot be written so that it reads the same.
    """
    documents = {
        _relative(place.path, data.path): _list(place, data.path)
        for places in data.places.values()
        for place in places
        if place.listed is not None
    }
    documents[_relative(data.yaml_path, data.path)] = _yaml(data)
    return documents


def _yaml(data: YoloData) -> bytes:
    own = os.path.realpath(data.yaml_path.parent)
    content: dict[str, Any] = {"path": os.path.relpath(data.path, own)}
    for split, places in data.places.items():
        content[split] = [_relative(place.path, data.path) for place in places]
    content["names"] = list(data.names)
    if data.keypoints is not None:
        content["kpt_shape"] = list(data.keypoints)
        content |= {"flip_idx": list(data.flip)} if data.flip else {}
        content |= {"kpt_names": list(data.keypoint_names)} if data.keypoint_names else {}
    text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False, width=1000)
    return _encoded(text, data.yaml_path, data.path, limit=MAX_YAML_BYTES)


def _list(place: Place, base: Path) -> bytes:
    folder = place.path.parent
    # './' is meant from the list, and keeps a blank at the beginning of a name.
    text = "".join(f"./{os.path.relpath(image, folder)}\n" for image in place.listed or ())
    return _encoded(text, place.path, base, limit=MAX_LIST_BYTES)


def _encoded(text: str, file: Path, base: Path, *, limit: int) -> bytes:
    shown = relative_name(file, base)
    try:
        content = text.encode()
    except UnicodeEncodeError:
        raise DatasetError(f"'{shown}' names a folder or file whose name is not UTF-8") from None
    if len(content) > limit:
        raise DatasetError(f"'{shown}', with relative names, has more than {limit // 1024} kB")
    return content


def _relative(path: Path, base: Path) -> str:
    return os.path.relpath(path, base)
