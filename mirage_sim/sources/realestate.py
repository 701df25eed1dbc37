"""RealEstate10K: camera files in its format, with the frames of each in a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.folders import visible
from mirage_sim.pictures import find_frame, read_picture
from mirage_sim.recording.camera_file import CameraFile, read_cameras
from mirage_sim.sources.clip import Array, PosedClip, frame_numbers, upright

_MICROSECONDS = 1e6


class RealEstateSource:
    """Camera files `<name>.txt` and frames `<name>/<timestamp>.png` (or .jpg), as a `ClipSource`.

    The data set has no depth, and its unit of length is another one in every file.
    """

    def __init__(self, cameras: str | Path, frames: str | Path | None = None, scale: float = 1.0) -> None:
        """Look which videos there are.

        Args:
            cameras: Folder of camera files.
            frames: Folder of the folders of frames; that of the camera files if `None`.
            scale: Metres of one unit of the files.

        Raises:
            InputError: If the scale is not positive.
            FileFormatError: If no camera file has a folder of frames.
        """
        if not 0 < scale < float("inf"):
            raise InputError(f"scale must be positive, got {scale}")
        self.cameras, self.scale = Path(cameras), scale
        self.frames = self.cameras if frames is None else Path(frames)
        found = [path.stem for path in visible(self.cameras, "*.txt")]
        self._names = [name for name in found if (self.frames / name).is_dir()]
        if not self._names:
            raise FileFormatError(
                f"{self.cameras} must hold camera files <name>.txt and {self.frames} a folder <name> of "
                f"frames for each, got {len(found)} camera files and no such folder"
            )
        self._read: tuple[str, CameraFile, Array] | None = None

    def names(self) -> list[str]:
        """Camera files that have a folder of frames, sorted."""
        return list(self._names)

    def length(self, name: str) -> int:
        """Number of cameras in a file.

        Args:
            name: One of `names()`.

        Returns:
            The number.

        Raises:
            InputError: If there is no such file.
            FileFormatError: If it is damaged.
        """
        return len(self._read_cameras(name)[0].timestamps)

    def read(self, name: str, start: int, frames: int, step: int = 1) -> PosedClip:
        """Read a stretch of a video.

        Args:
            name: One of `names()`.
            start: First frame.
            frames: How many.
            step: From one to the next.

        Returns:
            The clip, without depth and mask. The world is the file's own, turned upright and scaled.

        Raises:
            InputError: If there is no such video, or the stretch leaves it.
            FileFormatError: If a file is missing or damaged.
        """
        cameras, cam2world = self._read_cameras(name)
        times = cameras.timestamps
        numbers = list(frame_numbers(name, len(times), start, frames, step))
        gap = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
        if not gap > 0:
            raise FileFormatError(f"{self.cameras / name}.txt must hold cameras at rising times, got {times}")
        pictures = [read_picture(find_frame(self.frames / name, times[number])) for number in numbers]
        if len({picture.shape for picture in pictures}) != 1:
            raise FileFormatError(f"{self.frames / name} must hold frames of one size, got several")
        height, width = pictures[0].shape[:2]
        return PosedClip(
            frames=np.stack(pictures),
            depth=None,
            movable=None,
            cam2world=cam2world[numbers],
            intrinsics=cameras.intrinsics(height, width).numpy()[numbers],
            fps=_MICROSECONDS / gap / step,
            name=name,
        )

    def _read_cameras(self, name: str) -> tuple[CameraFile, Array]:
        """A camera file, and its poses float32 [N, 4, 4] in metres."""
        if self._read is not None and self._read[0] == name:
            return self._read[1:]
        if name not in self._names:
            raise InputError(f"name must be one of the {len(self._names)} camera files, got {name!r}")
        cameras = read_cameras(self.cameras / f"{name}.txt")
        poses = upright(cameras.cam2world.numpy())
        poses[:, :3, 3] *= self.scale
        self._read = (name, cameras, poses)
        return self._read[1:]
