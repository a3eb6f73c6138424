"""Pictures of what a model got wrong: truth and prediction side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from adapters.data.content import IGNORED, Object
from adapters.data.drawing import object_mask
from adapters.data.task_classes import BACKGROUND
from adapters.prediction import FoundObject

SIDE = 360  # pixels of a picture's longer side
_GAP = 8
_HEADER = 28
_MASK_SHARE = 110  # of 255: how strongly a mask covers the image

Colour = tuple[int, int, int]


def colour_of(class_id: int) -> Colour:
    """Return a class's colour: neighbours differ, and the same class always has the same."""
    # The golden angle: any number of hues, each far from those before it.
    hue = (class_id * 137.508 + 15) % 360
    value = Image.new("HSV", (1, 1), (int(hue / 360 * 255), 190, 255 - 45 * (class_id // 5 % 3)))
    pixel = value.convert("RGB").getpixel((0, 0))
    assert isinstance(pixel, tuple)
    return pixel[0], pixel[1], pixel[2]


def thumbnail(image: Image.Image) -> Image.Image:
    """Return an image of at most SIDE pixels a side; a tiny one is enlarged by a whole number."""
    factor = SIDE / max(image.size)
    if factor >= 2:
        size = tuple(side * min(int(factor), 8) for side in image.size)
        return image.resize((size[0], size[1]), Image.Resampling.NEAREST)
    size = tuple(max(1, round(side * min(factor, 1.0))) for side in image.size)
    return image.resize((size[0], size[1]))


def side_by_side(
    image: Image.Image,
    *,
    truths: Sequence[Object],
    found: Sequence[FoundObject],
    names: Sequence[str],
) -> Image.Image:
    """Draw what is in an image on the left and what was found in it on the right."""
    base = thumbnail(image)
    left, right = base.copy(), base.copy()
    for true in truths:
        mask = None
        if true.polygons or true.mask is not None:
            mask = object_mask(true, size=base.size)
        _draw_object(left, true, text=names[true.class_id], mask=mask)
    for one in reversed(found):  # the surest on top
        text = f"{names[one.class_id]} {one.score:.2f}"
        _draw_object(right, one, text=text, mask=one.mask)
    return _beside(left, right)


def masks_side_by_side(
    image: Image.Image, *, truth: Any, said: Any, clear: int | None
) -> Image.Image:
    """Lay the classes' colours over an image, truth on the left, prediction on the right.

    The class ``clear``, the background, has none.
    """
    base = thumbnail(image)
    return _beside(_overlaid(base, truth, clear), _overlaid(base, said, clear))


def _overlaid(image: Image.Image, mask: Any, clear: int | None) -> Image.Image:
    small = np.asarray(Image.fromarray(mask).resize(image.size, Image.Resampling.NEAREST))
    colours = Image.fromarray(palette()[small])
    shown = Image.fromarray(((small != IGNORED) & (small != clear)).astype(np.uint8) * _MASK_SHARE)
    return Image.composite(colours, image, shown)


def background_id(names: Sequence[str]) -> int | None:
    """Return the class that is no thing of its own, if there is one."""
    return names.index(BACKGROUND) if BACKGROUND in names else None


def palette() -> Any:
    """Return the colours of the class ids 0..255 as an array (256, 3) of bytes."""
    return np.array([colour_of(i) for i in range(256)], np.uint8)


def _draw_object(
    canvas: Image.Image, thing: Object | FoundObject, *, text: str, mask: Any | None
) -> None:
    colour = colour_of(thing.class_id)
    width, height = canvas.size
    if mask is not None:
        area = Image.fromarray(mask).resize(canvas.size, Image.Resampling.NEAREST)
        share = area.convert("L").point(_lightened)
        canvas.paste(Image.new("RGB", canvas.size, colour), mask=share)
    draw = ImageDraw.Draw(canvas)
    if thing.corners:
        corners = thing.corners
        points = [(x * width, y * height) for x, y in zip(corners[::2], corners[1::2], strict=True)]
        draw.polygon(points, outline=colour, width=2)
    else:
        draw.rectangle(_rectangle(thing.box, canvas.size), outline=colour, width=2)
    for x, y, seen in thing.keypoints:
        if seen > 0:
            x, y = x * width, y * height
            draw.ellipse((x - 3, y - 3, x + 3, y + 3), fill=colour, outline="white")
    _label(draw, text, at=_rectangle(thing.box, canvas.size)[:2], colour=colour, size=canvas.size)


_lightened: Callable[[int], float] = lambda value: _MASK_SHARE if value else 0  # noqa: E731


def _rectangle(
    box: tuple[float, float, float, float], size: tuple[int, int]
) -> tuple[float, float, float, float]:
    """Return a box in pixels; a predicted one may have its sides the wrong way round."""
    (left, right), (top, bottom) = sorted((box[0], box[2])), sorted((box[1], box[3]))
    return left * size[0], top * size[1], right * size[0], bottom * size[1]


def _label(
    draw: ImageDraw.ImageDraw,
    text: str,
    *,
    at: tuple[float, float],
    colour: Colour,
    size: tuple[int, int],
) -> None:
    font = ImageFont.load_default(15)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    x = max(0.0, min(at[0], size[0] - (right - left) - 4))
    y = max(0.0, at[1] - (bottom - top) - 5)
    draw.rectangle((x, y, x + right - left + 4, y + bottom - top + 4), fill=colour)
    light = sum(colour) > 380
    draw.text((x + 2 - left, y + 2 - top), text, font=font, fill="black" if light else "white")


def _beside(left: Image.Image, right: Image.Image) -> Image.Image:
    width, height = left.size
    sheet = Image.new("RGB", (2 * width + _GAP, height + _HEADER), "white")
    draw = ImageDraw.Draw(sheet)
    for x, title, picture in ((0, "Truth", left), (width + _GAP, "Prediction", right)):
        draw.text((x + 4, 3), title, font=ImageFont.load_default(18), fill=(40, 40, 40))
        sheet.paste(picture, (x, _HEADER))
    return sheet
