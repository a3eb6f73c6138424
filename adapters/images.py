"""Opening images that come from users: by the formats that are allowed, turned, as RGB."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from PIL import Image, ImageOps, UnidentifiedImageError

from adapters.data.description import DatasetError
from adapters.data.images import FORMATS, MAX_IMAGE_PIXELS, to_rgb
from adapters.data.roots import printable

_LONGEST = 16  # times as long as it is wide


def middle(image: Image.Image) -> Image.Image:
    """Return the middle part of an image that is far longer than it is wide, others as they are.

    For models that look at a centred square, whose library makes an image's shorter side that of
    the square: one of a few bytes, 100,000 pixels by one, would become gigabytes.
    """
    longest = _LONGEST * min(image.size)
    if max(image.size) <= longest:
        return image
    width, height = (min(side, longest) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def open_rgb(source: Path | bytes) -> Image.Image:
    """Return an image as RGB, turned as its camera said, from a file or a file's content.

    Raises DatasetError where it cannot be read as one of the formats that a data set may hold.
    """
    name = "the file" if isinstance(source, bytes) else f"'{printable(str(source))}'"
    try:
        with warnings.catch_warnings():
            # The limit is checked here, and lies below the one that Pillow warns of.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            file = io.BytesIO(source) if isinstance(source, bytes) else source
            with Image.open(file, formats=FORMATS) as image:
                if image.width * image.height > MAX_IMAGE_PIXELS:
                    raise ValueError(f"it has more than {MAX_IMAGE_PIXELS // 10**6} million pixels")
                turned: Image.Image = ImageOps.exif_transpose(image)
                return to_rgb(turned)
    except MemoryError:
        raise
    except Exception as error:  # on hostile bytes decoders raise anything, from IndexError on
        unknown = isinstance(error, UnidentifiedImageError)  # its message has a memory address
        reason = "it is no image of a known format" if unknown else printable(str(error))[:200]
        raise DatasetError(f"{name} cannot be read as an image: {reason}") from error
