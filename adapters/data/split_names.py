"""Telling by a folder's or a file's name of which split it is."""

from __future__ import annotations

import re

SPLITS = ("train", "val", "test")
SPLIT_FOLDERS = {  # as they are written in lower case
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}


def split_of(name: str) -> str | None:
    """Return the split that a word of a name tells: 'instances_val2017', 'Train', 'test_set'."""
    word = split_word(name)
    return SPLIT_FOLDERS[re.sub("[^a-z]", "", word.lower())] if word else None


def split_word(name: str) -> str | None:
    """Return the part of a name that tells its split, with its year: 'val2017'."""
    for part in re.split(r"[^A-Za-z0-9]+", name):
        if re.sub("[0-9]+$", "", part.lower()) in SPLIT_FOLDERS:
            return part
    return None
