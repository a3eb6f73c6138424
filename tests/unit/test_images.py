"""Images of odd shapes, before they meet a model."""

from __future__ import annotations

import pytest
from PIL import Image

from adapters.images import middle
from adapters.timm_training.data import evaluation_transform


@pytest.mark.parametrize("size", [(1, 1), (640, 480), (16, 1), (3, 48)])
def test_an_image_of_a_usual_shape_is_left_as_it_is(size: tuple[int, int]) -> None:
    image = Image.new("RGB", size)
    assert middle(image) is image


def test_of_one_that_is_far_longer_than_wide_the_middle_is_looked_at() -> None:
    image = Image.new("RGB", (3, 1001))
    image.putpixel((1, 500), (255, 0, 0))
    cut = middle(image)
    assert cut.size == (3, 48)
    assert cut.getpixel((1, 24)) == (255, 0, 0)


def test_a_line_of_a_few_bytes_does_not_fill_the_memory() -> None:
    config = {"input_size": (3, 64, 64), "interpolation": "bicubic", "mean": (0.0, 0.0, 0.0)}
    transform = evaluation_transform({**config, "crop_pct": 0.9, "crop_mode": "center"})
    line = Image.new("RGB", (20_000_000, 1), (200, 100, 50))  # resized as it is: 320 GB
    assert transform(line).shape == (3, 64, 64)
