"""ViPE: videos with the poses, intrinsics, depth and instances that ViPE found in them.

Two layouts are read. ViPE's own has a folder for each kind of file:

    rgb/<name>.mp4
    pose/<name>.npz                 inds [N], data [N, 4, 4]: cam2world, OpenCV
    intrinsics/<name>.npz           inds [N], data [N, 4]: fx fy cx cy in pixels
    intrinsics/<name>_camera.txt    `<frame>: <kind>` a line; only PINHOLE is read
    depth/<name>.zip                00000.exr, ...: metres, half floats in a channel Z; may be missing
    mask/<name>.zip                 00000.png, ...: numbers of instances, 0 for none; may be missing

The flat one, which the training of the full-size model was prepared in, has a folder for each video, with
`clip.mp4`, `pose.npz`, `intrinsics.npz`, `depth.zip` and `mask.zip` in it.

Every instance counts as movable, whatever its name: ViPE looks for what moves by itself, and for the sky.

Source: nv-tlabs/vipe, release 1.1 (`vipe/utils/io.py`, `vipe/streams/base.py`), and the data preparation of
the paper's reference code for the flat layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mirage_sim.errors import FileFormatError, InputError, check_shape
from mirage_sim.folders import visible
from mirage_sim.geometry import check_intrinsics, check_pose
from mirage_sim.sources.clip import Array, PosedClip, frame_numbers, upright
from mirage_sim.sources.video import VideoIndex, index_video, read_frames
from mirage_sim.sources.vipe_files import read_camera_types, read_depth, read_instances, read_table

FLAT_VIDEO = "clip.mp4"


@dataclass(frozen=True)
class VipePaths:
    """Files of one video; `depth`, `mask` and `camera_types` may be missing."""

    video: Path
    pose: Path
    intrinsics: Path
    depth: Path
    mask: Path
    camera_types: Path | None = None


class VipeSource:
    """A folder of videos in either layout, as a `ClipSource`."""

    def __init__(self, folder: str | Path) -> None:
        """Look which videos there are.

        Args:
            folder: In either layout.

        Raises:
            FileFormatError: If it holds no video that has poses.
        """
        self.folder = Path(folder)
        self._flat = not (self.folder / "pose").is_dir()
        found = visible(self.folder, "*/pose.npz" if self._flat else "pose/*.npz")
        self._names = sorted(path.parent.name if self._flat else path.stem for path in found)
        self._names = [name for name in self._names if self.paths(name).video.is_file()]
        if not self._names:
            raise FileFormatError(
                f"{self.folder} must hold rgb/<name>.mp4 and pose/<name>.npz, or <name>/{FLAT_VIDEO} and "
                "<name>/pose.npz, got none"
            )
        self._index: VideoIndex | None = None
        self._cameras: tuple[str, Array, Array] | None = None

    def paths(self, name: str) -> VipePaths:
        """Where the files of a video are, or would be."""
        if self._flat:
            home = self.folder / name
            files = ("pose.npz", "intrinsics.npz", "depth.zip", "mask.zip")
            return VipePaths(home / FLAT_VIDEO, *(home / file for file in files))
        lens = self.folder / "intrinsics"
        return VipePaths(
            video=self.folder / "rgb" / f"{name}.mp4",
            pose=self.folder / "pose" / f"{name}.npz",
            intrinsics=lens / f"{name}.npz",
            depth=self.folder / "depth" / f"{name}.zip",
            mask=self.folder / "mask" / f"{name}.zip",
            camera_types=lens / f"{name}_camera.txt",
        )

    def names(self) -> list[str]:
        """Videos that have poses, sorted; one whose poses are missing is not among them."""
        return list(self._names)

    def length(self, name: str) -> int:
        """Number of frames, which is that of the poses.

        Args:
            name: One of `names()`.

        Returns:
            The number.

        Raises:
            InputError: If there is no such video.
            FileFormatError: If its poses or intrinsics are missing or damaged.
        """
        return len(self._read_cameras(name)[0])

    def read(self, name: str, start: int, frames: int, step: int = 1) -> PosedClip:
        """Read a stretch of a video.

        Args:
            name: One of `names()`.
            start: First frame.
            frames: How many.
            step: From one to the next.

        Returns:
            The clip. The world is the video's own, turned upright.

        Raises:
            InputError: If there is no such video, or the stretch leaves it.
            FileFormatError: If a file is missing, damaged, or does not fit the others.
            MissingExtraError: If there is depth and OpenEXR is not installed.
        """
        cam2world, intrinsics = self._read_cameras(name)
        numbers = frame_numbers(name, len(cam2world), start, frames, step)
        paths = self.paths(name)
        if self._index is None or self._index.path != paths.video:
            self._index = index_video(paths.video)
        if len(self._index.times) != len(cam2world):
            raise FileFormatError(
                f"{paths.video} must have the {len(cam2world)} frames of {paths.pose}, "
                f"got {len(self._index.times)}"
            )
        pictures = read_frames(self._index, numbers)
        depth = read_depth(paths.depth, numbers) if paths.depth.is_file() else None
        movable = read_instances(paths.mask, numbers) > 0 if paths.mask.is_file() else None
        for path, images in ((paths.depth, depth), (paths.mask, movable)):
            if images is not None and images.shape != pictures.shape[:3]:
                wanted, got = list(pictures.shape[1:3]), list(images.shape[1:])
                raise FileFormatError(f"{path} must hold images {wanted} as the video, got {got}")
        return PosedClip(
            frames=pictures,
            depth=depth,
            movable=movable,
            cam2world=cam2world[list(numbers)],
            intrinsics=intrinsics[list(numbers)],
            fps=self._index.fps / step,
            name=name,
        )

    def _read_cameras(self, name: str) -> tuple[Array, Array]:
        """Poses float32 [N, 4, 4] and intrinsics float32 [N, 3, 3] of a whole video."""
        if self._cameras is not None and self._cameras[0] == name:
            return self._cameras[1:]
        if name not in self._names:
            raise InputError(f"name must be one of the {len(self._names)} videos, got {name!r}")
        paths = self.paths(name)
        told = paths.camera_types
        kinds = read_camera_types(told) if told is not None and told.is_file() else {"PINHOLE"}
        if kinds != {"PINHOLE"}:
            raise FileFormatError(f"{told} must tell PINHOLE cameras only, got {sorted(kinds)}")
        poses, lens = read_table(paths.pose, (4, 4)), read_table(paths.intrinsics, (4,))
        intrinsics = np.zeros((len(lens), 3, 3), np.float32)
        intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]] = lens
        intrinsics[:, 2, 2] = 1.0
        try:
            check_pose("data", poses)
        except InputError as error:
            raise FileFormatError(f"{paths.pose} must hold rigid cam2world: {error}") from error
        try:
            check_shape("data", lens, [len(poses), 4])
            check_intrinsics("data", intrinsics)
        except InputError as error:
            raise FileFormatError(f"{paths.intrinsics} must hold a lens for each pose: {error}") from error
        self._cameras = (name, upright(poses), intrinsics)
        return self._cameras[1:]
