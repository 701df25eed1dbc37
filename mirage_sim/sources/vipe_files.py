"""ViPE's files: cameras from npz, depth from zipped EXR images, instances from zipped PNG images.

Source: what `vipe/utils/io.py` of nv-tlabs/vipe (release 1.1) writes.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from mirage_sim.errors import FileFormatError, MissingExtraError
from mirage_sim.sources.clip import Array, zero_unknown

LABEL_MODES = ("1", "L", "P", "I", "I;16", "I;16B")
"""Modes of Pillow's images that hold one number a pixel; of a palette it is the number that counts."""


def read_table(path: Path, shape: tuple[int, ...]) -> Array:
    """Read one row a frame from an npz file of `inds` and `data`.

    Args:
        path: The file.
        shape: Of a row.

    Returns:
        float32 [N, *shape], in the order of the frames.

    Raises:
        FileFormatError: If it is missing or damaged, has rows of another shape, or lacks a frame.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            numbers, rows = file["inds"], file["data"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise FileFormatError(f"{path} must hold the arrays inds and data, got {error!r}") from error
    count = len(rows) if rows.ndim else 0
    if rows.shape != (count, *shape) or rows.dtype.kind != "f" or count == 0:
        wanted = ["N", *shape]
        raise FileFormatError(f"{path} must hold data {wanted}, got {rows.dtype} {list(rows.shape)}")
    order = np.argsort(numbers, axis=None)
    if numbers.shape != (count,) or not np.array_equal(numbers[order], np.arange(count)):
        raise FileFormatError(f"{path} must hold a row for each frame from 0 on, got {len(numbers)} inds")
    table: Array = rows[order].astype(np.float32)
    return table


def read_depth(path: Path, numbers: range) -> Array:
    """Read z-depth.

    Args:
        path: Zip file of EXR images `<frame, five digits>.exr`, half floats in a channel Z.
        numbers: Frames wanted.

    Returns:
        float32 [F, H, W] in metres, 0 where it is not known.

    Raises:
        MissingExtraError: If OpenEXR is not installed.
        FileFormatError: If the file is missing or damaged, or lacks a frame.
    """
    library = _open_exr()

    def decode(content: bytes) -> Array:
        image = library.File(io.BytesIO(content), separate_channels=True)
        metres = image.channels()["Z"].pixels
        if metres.dtype.kind != "f":
            raise ValueError(f"Z must hold floating-point metres, got {metres.dtype}")
        return np.array(metres, dtype=np.float32)

    return zero_unknown(_read_images(path, numbers, "exr", decode))


def read_instances(path: Path, numbers: range) -> Array:
    """Read numbers of instances.

    Args:
        path: Zip file of PNG images `<frame, five digits>.png`.
        numbers: Frames wanted.

    Returns:
        Integers [F, H, W], 0 where no instance is seen.

    Raises:
        FileFormatError: If the file is missing or damaged, or lacks a frame.
    """

    def decode(content: bytes) -> Array:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as image:
            if image.mode not in LABEL_MODES:
                raise ValueError(f"must hold one number a pixel, got mode {image.mode}")
            return np.array(image)

    return _read_images(path, numbers, "png", decode)


def read_camera_types(path: Path) -> set[str]:
    """Read which kinds of camera a video was taken with.

    Args:
        path: Text file of lines `<frame>: <kind>`.

    Returns:
        The kinds, such as "PINHOLE".

    Raises:
        FileFormatError: If a line is none of this format.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} must be a text file, got {error}") from error
    pairs = [line.partition(":") for line in lines if line.strip()]
    bad = [line for line, colon, _ in pairs if not colon]
    if bad:
        raise FileFormatError(f"{path} must hold lines `frame: kind`, got {bad[0]!r}")
    return {kind.strip() for _, _, kind in pairs}


def _open_exr() -> ModuleType:
    try:
        import OpenEXR
    except ImportError as error:
        raise MissingExtraError(
            'ViPE\'s depth needs OpenEXR, which is not installed: pip install "mirage-sim[vipe]"'
        ) from error
    library: ModuleType = OpenEXR
    return library


def _read_images(path: Path, numbers: range, ending: str, decode: Callable[[bytes], Array]) -> Array:
    """Decode the images of some frames; [F, H, W]."""
    images = []
    member = ""
    try:
        with zipfile.ZipFile(path) as archive:
            for number in numbers:
                member = f"{number:05d}.{ending}"
                images.append(decode(archive.read(member)))
    # What is no zip file, and what is damaged in it; OpenEXR raises RuntimeError, Pillow OSError, and some
    # damage shows as a ValueError or a KeyError in either.
    except (
        OSError,
        RuntimeError,
        ValueError,
        KeyError,
        SyntaxError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise FileFormatError(f"{path} must be a zip file with a sound {member}, got {error!r}") from error
    shapes = {image.shape for image in images}
    if len(shapes) != 1:
        raise FileFormatError(f"{path} must hold images of one size, got {sorted(shapes)}")
    return np.stack(images)
