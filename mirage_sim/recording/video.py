"""Recording, pictures: frames as an mp4 video or as a contact sheet, written whole or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any, cast

import av
import numpy as np
from PIL import Image

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError
from mirage_sim.files import whole_file

Frame = np.ndarray[Any, Any]

GAP_PIXELS = 2
"""Space between the frames of a contact sheet."""
_ENCODERS = (("libx264", {"crf": "18", "preset": "veryfast"}), ("mpeg4", {"qscale": "3"}))


def write_mp4(path: str | Path, frames: Iterable[Frame], fps: float = 10.0) -> Path:
    """Write frames as a video that browsers play (H.264, or MPEG-4 where PyAV has no H.264 encoder).

    Args:
        path: File ending in .mp4; an existing one is replaced.
        frames: Images uint8 [H, W, 3] of one size, taken one by one. An odd side is padded by its last line.
        fps: Frames a second.

    Returns:
        The path.

    Raises:
        InputError: If there is no frame, or one of another kind or size.
        FileWriteError: If the file cannot be written.
    """
    if not 0 < fps < 1000:
        raise InputError(f"fps must be between 0 and 1000, got {fps}")
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise InputError("frames must hold at least one image, got none")
    first = _check_frame(first, None)
    codec, options = next(entry for entry in _ENCODERS if entry[0] in av.codecs_available)
    with whole_file(Path(path)) as temporary, av.open(str(temporary), "w") as container:
        rate = Fraction(fps).limit_denominator(1000)
        stream = cast(av.VideoStream, container.add_stream(codec, rate=rate, options=options))
        stream.width, stream.height = (first.shape[1] + 1) // 2 * 2, (first.shape[0] + 1) // 2 * 2
        stream.pix_fmt = "yuv420p"
        for frame in _chain(first, iterator):
            padding = [(0, stream.height - frame.shape[0]), (0, stream.width - frame.shape[1]), (0, 0)]
            image = np.ascontiguousarray(np.pad(frame, padding, mode="edge"))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return Path(path)


def contact_sheet(frames: Sequence[Frame] | Frame, columns: int = 8) -> Frame:
    """Put frames side by side on white, row by row.

    Args:
        frames: Images uint8 [H, W, 3] of one size.
        columns: Frames in a row.

    Returns:
        One image, uint8 [rows·(H+gap)-gap, columns·(W+gap)-gap, 3].

    Raises:
        InputError: If there is no frame, or one of another kind or size.
    """
    if columns < 1:
        raise InputError(f"columns must be at least 1, got {columns}")
    if len(frames) == 0:
        raise InputError("frames must hold at least one image, got none")
    first = _check_frame(frames[0], None)
    height, width = first.shape[:2]
    columns = min(columns, len(frames))
    rows = -(-len(frames) // columns)
    size = (rows * (height + GAP_PIXELS) - GAP_PIXELS, columns * (width + GAP_PIXELS) - GAP_PIXELS, 3)
    sheet = np.full(size, 255, np.uint8)
    for i, frame in enumerate(frames):
        y, x = i // columns * (height + GAP_PIXELS), i % columns * (width + GAP_PIXELS)
        sheet[y : y + height, x : x + width] = _check_frame(frame, first.shape)
    return sheet


def write_png(path: str | Path, image: Frame) -> Path:
    """Write an image.

    Args:
        path: File; an existing one is replaced.
        image: uint8 [H, W, 3].

    Returns:
        The path.

    Raises:
        InputError: If it is no such image.
        FileWriteError: If the file cannot be written.
    """
    image = _check_frame(image, None)
    with whole_file(Path(path)) as temporary:
        Image.fromarray(image).save(temporary, format="PNG")
    return Path(path)


def _check_frame(frame: Frame, shape: tuple[int, ...] | None) -> Frame:
    frame = own_array("frames", frame)
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8 or frame.size == 0:
        raise InputError(f"frames must be uint8 [H, W, 3], got {frame.dtype} {list(frame.shape)}")
    if shape is not None and frame.shape != shape:
        raise InputError(f"frames must be of one size {list(shape)}, got {list(frame.shape)}")
    return frame


def _chain(first: Frame, rest: Iterator[Frame]) -> Iterator[Frame]:
    yield first
    for frame in rest:
        yield _check_frame(frame, first.shape)
