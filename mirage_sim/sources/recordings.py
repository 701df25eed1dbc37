"""Recordings: the project's own HDF5 files as a source of clips."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.folders import visible
from mirage_sim.recording import HDF5Reader
from mirage_sim.sources.clip import Array, PosedClip, frame_numbers, zero_unknown

ENDINGS = (".h5", ".hdf5")


class RecordingsSource:
    """Episodes of one recording, or of all in a folder, as a `ClipSource`.

    An episode of N steps is a video of N + 1 frames, named `<file>/<episode>`.
    """

    def __init__(self, path: str | Path, fps: float = 10.0, image: str = "rgb", depth: str = "depth") -> None:
        """Look which episodes there are.

        Args:
            path: A recording, or a folder of them.
            fps: Frames a second, which a recording does not tell.
            image: Observation that holds pictures.
            depth: Observation that holds z-depth in metres, where there is one.

        Raises:
            FileFormatError: If there is no recording, or one is damaged.
        """
        path = Path(path)
        files = [path] if path.is_file() else []
        if path.is_dir():
            # What is still being recorded ends in `.part.h5`.
            found = [file for file in visible(path) if file.suffix in ENDINGS and file.is_file()]
            files = [file for file in found if ".part" not in file.name]
        self._readers = {file.stem: HDF5Reader(file) for file in files}
        if not files or len(self._readers) < len(files):
            raise FileFormatError(
                f"{path} must hold recordings (*.h5, *.hdf5) of different names, got {files}"
            )
        self.fps, self.image, self.depth = fps, image, depth
        self._lengths: dict[str, int] = {
            f"{stem}/{episode}": steps + 1
            for stem, reader in self._readers.items()
            for episode, steps in reader.lengths.items()
        }

    def names(self) -> list[str]:
        """Episodes, file by file, in the order in which they were recorded."""
        return list(self._lengths)

    def length(self, name: str) -> int:
        """Number of frames of an episode.

        Args:
            name: One of `names()`.

        Returns:
            The number.

        Raises:
            InputError: If there is no such episode.
        """
        if name not in self._lengths:
            raise InputError(f"name must be one of the {len(self._lengths)} episodes, got {name!r}")
        return self._lengths[name]

    def read(self, name: str, start: int, frames: int, step: int = 1) -> PosedClip:
        """Read a stretch of an episode.

        Args:
            name: One of `names()`.
            start: First frame.
            frames: How many.
            step: From one to the next.

        Returns:
            The clip. A depth that was recorded for blocks of pixels is given to each of their pixels.

        Raises:
            InputError: If there is no such episode, or the stretch leaves it.
            FileFormatError: If the recording has no pictures or cameras, or depth that does not fit them.
        """
        numbers = frame_numbers(name, self.length(name), start, frames, step)
        stem, _, episode = name.rpartition("/")
        rows = slice(numbers.start, numbers.stop, numbers.step)
        with self._readers[stem] as reader:
            keys = reader.keys(episode)
            lens = reader.intrinsics(episode)
            if self.image not in keys or "cam2world" not in keys or lens is None:
                raise FileFormatError(
                    f"{reader.path} must hold {self.image}, cam2world and intrinsics of {episode}, got {keys}"
                    + (", without intrinsics" if lens is None else "")
                )
            pictures = reader.frames(episode, self.image, rows)
            cam2world = reader.frames(episode, "cam2world", rows).astype(np.float32)
            depth = reader.frames(episode, self.depth, rows) if self.depth in keys else None
        return PosedClip(
            frames=pictures,
            depth=None if depth is None else _spread(depth, pictures, reader.path),
            movable=None,
            cam2world=cam2world,
            intrinsics=np.repeat(lens[None].astype(np.float32), len(pictures), axis=0),
            fps=self.fps / step,
            name=name,
        )


def _spread(depth: Array, pictures: Array, path: Path) -> Array:
    """Bring depth [F, h, w] or [F, h, w, 1] to the size of the pictures; unknown depth becomes 0."""
    if depth.dtype.kind != "f" or depth.ndim not in (3, 4) or depth.shape[3:] not in ((), (1,)):
        told = f"{depth.dtype} {list(depth.shape)}"
        raise FileFormatError(f"{path} must hold depth in floating-point metres [F, h, w], got {told}")
    depth = zero_unknown(depth.astype(np.float32).reshape(*depth.shape[:3]))
    (height, width), (rows, columns) = pictures.shape[1:3], depth.shape[1:]
    if height % rows or width % columns:
        raise FileFormatError(
            f"{path} must hold depth that divides {height} x {width}, got {rows} x {columns}"
        )
    return depth.repeat(height // rows, axis=1).repeat(width // columns, axis=2)
