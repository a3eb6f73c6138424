"""How alike a found object and a true one are, 0..1: by box, mask, oriented box or pose.

Each measure takes what was found in an image, what is in it, and the image's (width, height), and
returns an array (found, true). A crowd is matched by the share of the found object that lies in it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from adapters.data.content import Object
from adapters.data.drawing import object_mask
from adapters.prediction import FoundObject

Floats = NDArray[np.float64]
Size = tuple[int, int]
Similarity = Callable[[Sequence[FoundObject], Sequence[Object], Size], Floats]

# How far annotators of COCO's persons differ on each of the 17 points, as a share of the size.
_COCO_SIGMAS = np.array(
    [0.26, 0.25, 0.25, 0.35, 0.35, 0.79, 0.79, 0.72, 0.72, 0.62, 0.62, 1.07, 1.07, 0.87, 0.87,
     0.89, 0.89]
) / 10  # fmt: skip
# A pose data set tells boxes only; of COCO's persons this share of the box is person.
_POSE_AREA_SHARE = 0.53


def boxes(found: Sequence[FoundObject], truths: Sequence[Object], size: Size) -> Floats:
    """Return intersection over union of upright boxes."""
    a, b = _pixel_boxes(found, size), _pixel_boxes(truths, size)
    overlap = _box_overlap(a, b)
    return _over_union(overlap, areas=_box_areas(a), true_areas=_box_areas(b), truths=truths)


def masks(found: Sequence[FoundObject], truths: Sequence[Object], size: Size) -> Floats:
    """Return intersection over union of masks, counted in pixels."""
    a = [_packed(_mask_of_found(one, size)) for one in found]
    b = [_packed(object_mask(one, size=size)) for one in truths]
    overlap = np.zeros((len(a), len(b)))
    # Not by boxes first: a predicted mask may reach beyond its predicted box.
    for column, true in enumerate(b):
        for row, one in enumerate(a):
            overlap[row, column] = np.bitwise_count(one & true).sum()
    return _over_union(overlap, areas=_counts(a), true_areas=_counts(b), truths=truths)


def oriented(found: Sequence[FoundObject], truths: Sequence[Object], size: Size) -> Floats:
    """Return intersection over union of oriented boxes."""
    a = [_corners(one, size) for one in found]
    b = [_corners(one, size) for one in truths]
    near = _box_overlap(_around(a), _around(b)) > 0
    overlap = np.zeros((len(a), len(b)))
    for row, column in zip(*near.nonzero(), strict=True):
        overlap[row, column] = _area(_clip(a[row], b[column]))
    areas = np.array([_area(one) for one in a])
    true_areas = np.array([_area(one) for one in b])
    return _over_union(overlap, areas=areas, true_areas=true_areas, truths=truths)


def poses(found: Sequence[FoundObject], truths: Sequence[Object], size: Size) -> Floats:
    """Return object keypoint similarity, as COCO defines it; of points that are labelled."""
    result = np.zeros((len(found), len(truths)))
    true_boxes = _pixel_boxes(truths, size)
    for column, true in enumerate(truths):
        points = np.array(true.keypoints, float).reshape(-1, 3)
        labelled = points[:, 2] > 0
        sigmas = _sigmas(len(points))
        area = max(_box_areas(true_boxes[column : column + 1])[0] * _POSE_AREA_SHARE, 1e-9)
        for row, one in enumerate(found):
            guessed = np.array(one.keypoints, float).reshape(-1, 3)
            if labelled.any() and len(guessed) == len(points):
                apart = (guessed[:, :2] - points[:, :2]) * size
                error = (apart**2).sum(1) / ((2 * sigmas) ** 2 * 2 * area)
                result[row, column] = np.exp(-error)[labelled].mean()
    return result


def _mask_of_found(one: FoundObject, size: Size) -> NDArray[np.bool_]:
    if one.mask is None:
        return np.zeros((size[1], size[0]), bool)
    if one.mask.shape == (size[1], size[0]):
        return one.mask
    return np.asarray(Image.fromarray(one.mask).resize(size, Image.Resampling.NEAREST))


def _packed(mask: NDArray[np.bool_]) -> NDArray[np.uint64]:
    """Return a mask's bits in words, which are counted many times faster than its booleans."""
    bits = np.packbits(mask)
    return np.pad(bits, (0, -len(bits) % 8)).view(np.uint64)


def _counts(masks: Sequence[NDArray[np.uint64]]) -> Floats:
    return np.array([np.bitwise_count(mask).sum() for mask in masks], float)


def _pixel_boxes(things: Sequence[FoundObject] | Sequence[Object], size: Size) -> Floats:
    places = np.array([thing.box for thing in things], float).reshape(-1, 4)
    return places * (*size, *size)


def _box_areas(boxes: Floats) -> Floats:
    sides = (boxes[:, 2:] - boxes[:, :2]).clip(0)
    return sides[:, 0] * sides[:, 1]


def _box_overlap(a: Floats, b: Floats) -> Floats:
    left_top = np.maximum(a[:, None, :2], b[None, :, :2])
    right_bottom = np.minimum(a[:, None, 2:], b[None, :, 2:])
    sides = (right_bottom - left_top).clip(0)
    return sides[..., 0] * sides[..., 1]


def _over_union(
    overlap: Floats, *, areas: Floats, true_areas: Floats, truths: Sequence[Object]
) -> Floats:
    crowd = np.array([true.crowd for true in truths], bool)
    union = areas[:, None] + true_areas[None, :] - overlap
    whole = np.where(crowd[None, :], areas[:, None], union)
    return np.divide(overlap, whole, out=np.zeros_like(overlap), where=whole > 0)


def _corners(thing: FoundObject | Object, size: Size) -> Floats:
    """Return the corners (4, 2) in pixels, against the clock as the axes have it."""
    left, top, right, bottom = thing.box
    places = thing.corners or (left, top, right, top, right, bottom, left, bottom)
    points = np.array(places, float).reshape(-1, 2) * size
    return points if _signed_area(points) >= 0 else points[::-1]


def _around(polygons: Sequence[Floats]) -> Floats:
    ends = [(*one.min(0), *one.max(0)) for one in polygons]
    return np.array(ends, float).reshape(-1, 4)


def _clip(polygon: Floats, window: Floats) -> Floats:
    """Return the part of a polygon that lies in a convex one (Sutherland and Hodgman, 1974)."""
    points = [(float(x), float(y)) for x, y in polygon]
    edges = list(zip(window.tolist(), np.roll(window, -1, axis=0).tolist(), strict=True))
    for (ax, ay), (bx, by) in edges:
        kept: list[tuple[float, float]] = []
        sides = [(bx - ax) * (y - ay) - (by - ay) * (x - ax) for x, y in points]
        for i, (x, y) in enumerate(points):
            (px, py), side, before = points[i - 1], sides[i], sides[i - 1]
            if side * before < 0:
                t = before / (before - side)
                kept.append((px + t * (x - px), py + t * (y - py)))
            if side >= 0:
                kept.append((x, y))
        points = kept
    return np.array(points, float).reshape(-1, 2)


def _signed_area(polygon: Floats) -> float:
    if len(polygon) < 3:
        return 0.0
    x, y = polygon.T
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum() / 2)


def _area(polygon: Floats) -> float:
    return abs(_signed_area(polygon))


def _sigmas(points: int) -> Floats:
    if points == len(_COCO_SIGMAS):
        return _COCO_SIGMAS
    return np.full(points, 1 / max(points, 1))
