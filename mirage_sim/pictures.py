"""Pictures: image files as frames, uint8 [H, W, 3] as they are shown; what cannot become one is refused.

Greys of 16 bits are scaled, photographs are turned as their EXIF tag says. Refused are pictures with
transparent pixels, whose colours nobody saw, and numbers without a known range or colour space.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from mirage_sim.errors import FileFormatError

Array = np.ndarray[Any, Any]

FRAME_TYPES = (".png", ".jpg", ".jpeg", ".webp")
"""Endings of frames that lie beside a camera file."""
DAMAGE = (
    *(OSError, SyntaxError, ValueError, EOFError, LookupError, OverflowError, TypeError),
    *(struct.error, zlib.error, Image.DecompressionBombError),
)
"""What Pillow raises for damaged files."""
_OPAQUE = ("1", "L", "P", "RGB", "RGBX", "YCbCr")
_WITH_ALPHA = ("LA", "PA", "RGBA")
_16_BITS = ("I;16", "I;16L", "I;16B", "I;16N")
_16_BITS_IN_32 = ("PNG", "PPM")
"""Kinds of file whose greys of 16 bits some versions of Pillow give as integers of 32."""


def read_picture(path: Path) -> Array:
    """Read an image file.

    Args:
        path: PNG, JPEG, WebP or another kind that Pillow knows.

    Returns:
        uint8 [H, W, 3].

    Raises:
        FileFormatError: If it is missing or damaged, has transparent pixels, or holds other numbers than
            greys and RGB of 8 or 16 bits.
    """
    try:
        with Image.open(path) as file:
            kind = file.format
            image = ImageOps.exif_transpose(file)
            image.load()
    except DAMAGE as error:
        raise FileFormatError(f"{path} must be an image, got {error!r}") from error
    wide = image.mode in _16_BITS or (image.mode == "I" and kind in _16_BITS_IN_32)
    if not wide and image.mode not in (*_OPAQUE, *_WITH_ALPHA):
        raise FileFormatError(
            f"{path} must hold greys or RGB of 8 or 16 bits, got {kind} of mode {image.mode}"
        )
    keyed = "transparency" in image.info
    if (wide and keyed) or ((keyed or image.mode in _WITH_ALPHA) and _transparent(image)):
        raise FileFormatError(f"{path} must be opaque, got transparent pixels, whose colours are not known")
    if wide:
        grey = (np.array(image).astype(np.uint32) + 128) // 257  # 65535 = 255 · 257
        return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=-1)
    return np.array(image.convert("RGB"))


def find_frame(folder: Path, time: int) -> Path:
    """Find the frame of a timestamp.

    Args:
        folder: Holds frames `<timestamp>.png` (or .jpg, .jpeg, .webp).
        time: The timestamp.

    Returns:
        The file.

    Raises:
        FileFormatError: If there is none.
    """
    there = next((path for end in FRAME_TYPES if (path := folder / f"{time}{end}").is_file()), None)
    if there is None:
        raise FileFormatError(f"{folder} must hold a frame {time}.png (or .jpg), got none")
    return there


def _transparent(image: Image.Image) -> bool:
    return bool((np.asarray(image.convert("RGBA"))[..., 3] < 255).any())
