"""Video: single frames out of a video file, without reading the whole of it into memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np

from mirage_sim.errors import FileFormatError

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class VideoIndex:
    """Where the frames of a video lie.

    Attributes:
        path: The file.
        times: Time of every frame in the stream's own unit, in the order in which they are shown.
        fps: Frames a second, on average.
    """

    path: Path
    times: tuple[int, ...]
    fps: float


def index_video(path: Path) -> VideoIndex:
    """List the frames of a video; none of them is decoded.

    Args:
        path: A video file.

    Returns:
        Its index.

    Raises:
        FileFormatError: If it is missing, damaged, or holds no video.
    """
    with _opened(path) as (container, stream):
        packets = [packet for packet in container.demux(stream) if packet.size and not packet.is_discard]
        times = sorted(packet.pts for packet in packets if packet.pts is not None)
        rate = stream.average_rate
    if not times or len(times) < len(packets) or not rate:
        raise FileFormatError(f"{path} must hold frames with times and a rate, got {len(times)} frames")
    return VideoIndex(path, tuple(times), float(rate))


def read_frames(index: VideoIndex, numbers: range) -> Array:
    """Decode some frames of a video, from the last key frame before them on.

    Args:
        index: What `index_video` gave.
        numbers: Frames wanted, in rising order, none of them beyond the last.

    Returns:
        uint8 [F, H, W, 3].

    Raises:
        FileFormatError: If the file is damaged there.
    """
    places = {index.times[number]: place for place, number in enumerate(numbers)}
    try:
        return _decode(index.path, places, index.times[numbers[0]])
    except FileFormatError:
        # Seeking may land behind the frame, or on one that needs others from before: then all is decoded.
        return _decode(index.path, places, None)


def _decode(path: Path, places: dict[int, int], start: int | None) -> Array:
    """Decode the frames of some times, from `start` or the beginning on; [F, H, W, 3], `places` in order."""
    found: dict[int, Array] = {}
    with _opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        # Damage is to be told, not painted over, as far as a decoder notices it.
        stream.codec_context.options = {"err_detect": "explode"}
        if start is not None:
            container.seek(start, stream=stream)
        for frame in container.decode(stream):
            if frame.pts in places and not frame.is_corrupt:
                found[places[frame.pts]] = _as_shown(path, frame)
            if len(found) == len(places):
                return np.stack([found[place] for place in range(len(places))])
    raise FileFormatError(f"{path} must hold {len(places)} frames, got {len(found)}: it is damaged")


def _as_shown(path: Path, frame: Any) -> Array:
    """Give a frame's pixels, turned as the file asks for: phones keep pictures lying on their side."""
    turns, rest = divmod(round(frame.rotation), 90)
    if rest:
        raise FileFormatError(f"{path} must ask for turns of 90 degrees, got {frame.rotation}")
    return np.rot90(frame.to_ndarray(format="rgb24"), turns)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """Open a file's first video stream; what the library raises becomes our error."""
    try:
        with av.open(str(path)) as container:
            if not container.streams.video:
                raise FileFormatError(f"{path} must hold a video, got none")
            yield container, container.streams.video[0]
    except (av.error.FFmpegError, ValueError) as error:
        raise FileFormatError(f"{path} must be a readable video: {error}") from error
