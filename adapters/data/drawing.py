"""Masks from outlines: which class each pixel belongs to."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from adapters.data.content import IGNORED, Object

MAX_MASK_CLASSES = 255  # ids 0 to 254; 255 is IGNORED


def class_mask(
    objects: Sequence[Object], *, size: tuple[int, int], background: int
) -> NDArray[np.uint8]:
    """Return the class of each pixel (height, width) of an image of this (width, height).

    Small objects lie on large ones. The inside of a box without an outline is IGNORED: what of
    it belongs to the object is not known.
    """
    mask = Image.new("L", size, background)
    for thing in sorted(objects, key=_area, reverse=True):
        if thing.mask is not None:
            mask.paste(thing.class_id, mask=Image.fromarray(thing.mask).resize(size))
        elif thing.polygons:
            draw_polygons(mask, thing.polygons, fill=thing.class_id)
        else:
            left, top, right, bottom = thing.box
            outline = (left, top, right, top, right, bottom, left, bottom)
            draw_polygons(mask, (outline,), fill=IGNORED)
    return np.asarray(mask)


def object_mask(thing: Object, *, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return which pixels (height, width) of an image of this (width, height) an object covers."""
    canvas = Image.new("1", size)
    if thing.mask is not None:
        canvas = Image.fromarray(thing.mask).resize(size)
    else:
        draw_polygons(canvas, thing.polygons, fill=1)
    return np.asarray(canvas)


def draw_polygons(canvas: Image.Image, polygons: Sequence[Sequence[float]], *, fill: int) -> None:
    """Fill polygons, given in fractions of the canvas."""
    width, height = canvas.size
    draw = ImageDraw.Draw(canvas)
    for polygon in polygons:
        # Pillow counts pixels by their centres: the pixel 0 spans from -0.5 to 0.5.
        points = [
            (x * width - 0.5, y * height - 0.5)
            for x, y in zip(polygon[0::2], polygon[1::2], strict=True)
        ]
        draw.polygon(points, fill=fill)


def _area(thing: Object) -> float:
    left, top, right, bottom = thing.box
    return (right - left) * (bottom - top)
