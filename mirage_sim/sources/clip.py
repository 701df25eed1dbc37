"""Clips: a stretch of video whose cameras are known, the one shape in which every source gives its data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, InputTypeError, check_finite, check_shape
from mirage_sim.geometry import check_intrinsics, check_pose, rescale_intrinsics

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class PosedClip:
    """A stretch of F frames.

    Attributes:
        frames: uint8 [F, H, W, 3].
        depth: Z-depth float32 [F, H, W] in metres, 0 where it is unknown, or `None` if the source has none.
        movable: bool [F, H, W], true where something is seen that may move and is not to be remembered, or
            `None` where the source does not tell.
        cam2world: float32 [F, 4, 4], camera axes OpenCV, world z up, metres.
        intrinsics: float32 [F, 3, 3] in pixels.
        fps: Frames a second of the clip.
        name: What the source calls the video.
    """

    frames: Array
    depth: Array | None
    movable: Array | None
    cam2world: Array
    intrinsics: Array
    fps: float
    name: str

    def __post_init__(self) -> None:
        """Check kinds, shapes and ranges."""
        _check_kind("frames", self.frames, "uint8", ["F", "H", "W", 3])
        if self.frames.size == 0:
            raise InputError(f"frames must not be empty, got {list(self.frames.shape)}")
        count, height, width = self.frames.shape[:3]
        if self.depth is not None:
            _check_kind("depth", self.depth, "float32", [count, height, width])
            check_finite("depth", self.depth)
            if float(self.depth.min()) < 0:
                raise InputError(f"depth must be 0 (unknown) or positive metres, got {self.depth.min():g}")
        if self.movable is not None:
            _check_kind("movable", self.movable, "bool", [count, height, width])
        _check_kind("cam2world", self.cam2world, "float32", [count, 4, 4])
        check_pose("cam2world", self.cam2world)
        _check_kind("intrinsics", self.intrinsics, "float32", [count, 3, 3])
        check_intrinsics("intrinsics", self.intrinsics)
        if not 0 < self.fps < float("inf"):
            raise InputError(f"fps must be positive, got {self.fps}")

    @property
    def hw(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[1], self.frames.shape[2]

    def __len__(self) -> int:
        """Number of frames F."""
        return len(self.frames)


class ClipSource(Protocol):
    """Videos with cameras, read in stretches."""

    def names(self) -> list[str]:
        """Names of the videos, in an order that stays."""
        ...

    def length(self, name: str) -> int:
        """Number of frames of a video."""
        ...

    def read(self, name: str, start: int, frames: int, step: int = 1) -> PosedClip:
        """Read `frames` frames from `start` on, every `step`-th of the video."""
        ...


def frame_numbers(name: str, length: int, start: int, frames: int, step: int) -> range:
    """List the frames of a stretch.

    Args:
        name: Of the video, for the message.
        length: Number of its frames.
        start: First frame.
        frames: How many.
        step: From one to the next.

    Returns:
        Their numbers.

    Raises:
        InputError: If a number is out of range.

    Source: ours.
    """
    if start < 0 or frames < 1 or step < 1:
        raise InputError(f"start must be at least 0, frames and step 1, got {start}, {frames} and {step}")
    numbers = range(start, start + frames * step, step)
    if numbers[-1] >= length:
        raise InputError(f"start, frames and step must stay within {length} frames of {name}, got {numbers}")
    return numbers


def zero_unknown(depth: Array) -> Array:
    """Set depths to 0 that are not finite or not positive, in place; float32 [...] in metres."""
    depth[~(np.isfinite(depth) & (depth > 0))] = 0.0
    return depth


def upright(cam2world: Array) -> Array:
    """Turn a world of unknown direction so that its z axis points up.

    Where a video's poses come from pictures alone, the world's axes mean nothing. Cameras are mostly held
    level, so up is taken to be the mean of the directions that point up in the pictures.

    Args:
        cam2world: All poses of a video, float32 [N, 4, 4].

    Returns:
        The same cameras, float32 [N, 4, 4], turned about the world's origin.

    Source: ours.
    """
    poses = own_floats("cam2world", cam2world, torch.float64)
    up = -poses[:, :3, 1].mean(dim=0)  # [3]
    if float(up.norm()) < 1e-3:  # as often upside down as not: the first one decides
        up = -poses[0, :3, 1]
    up = up / up.norm()
    axis = torch.linalg.cross(up, up.new_tensor([0.0, 0.0, 1.0]))  # [3], its length the sine of the turn
    if float(up[2]) < -1 + 1e-9:
        turn = torch.diag(up.new_tensor([1.0, -1.0, -1.0]))
    else:
        cross = torch.linalg.cross(
            axis.expand(3, 3), torch.eye(3, dtype=axis.dtype, device="cpu")
        ).mT  # axis x (...)
        turn = torch.eye(3, dtype=axis.dtype, device="cpu") + cross + cross @ cross / (1.0 + up[2])
    poses[:, :3] = turn @ poses[:, :3]
    turned: Array = poses.float().numpy()
    return turned


def resized(clip: PosedClip, hw: tuple[int, int]) -> PosedClip:
    """Cut a clip around its centre to the aspect of `hw`, and resize it.

    Pictures are resized smoothly. Of depth and mask the pixel at the centre is taken: a depth between two
    surfaces would hang in the air.

    Args:
        clip: Any size.
        hw: Height and width wanted, in pixels.

    Returns:
        The clip at that size. Both sides scale alike, so that pixels stay square.

    Raises:
        InputError: If a size is not positive.

    Source: ours.
    """
    if min(hw) < 1:
        raise InputError(f"hw must be positive, got {hw}")
    if clip.hw == hw:
        return clip
    height, width = clip.hw
    ratio = max(hw[0] / height, hw[1] / width)
    top, left = max(0.0, 0.5 * (height - hw[0] / ratio)), max(0.0, 0.5 * (width - hw[1] / ratio))
    box = (left, top, width - left, height - top)
    size = (hw[1], hw[0])
    frames = np.stack(
        [
            np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.LANCZOS, box))
            for frame in clip.frames
        ]
    )
    rows = np.minimum((top + (np.arange(hw[0]) + 0.5) / ratio).astype(np.int64), height - 1)[
        :, None
    ]  # [H, 1]
    columns = np.minimum((left + (np.arange(hw[1]) + 0.5) / ratio).astype(np.int64), width - 1)  # [W]
    lens = clip.intrinsics.copy()
    lens[:, 0, 2] -= left
    lens[:, 1, 2] -= top
    return replace(
        clip,
        frames=frames,
        depth=None if clip.depth is None else clip.depth[:, rows, columns],
        movable=None if clip.movable is None else clip.movable[:, rows, columns],
        intrinsics=rescale_intrinsics(torch.from_numpy(lens), ratio).numpy(),
    )


def _check_kind(name: str, value: Array, dtype: str, shape: list[int | str | None]) -> None:
    if not isinstance(value, np.ndarray):
        raise InputTypeError(f"{name} must be an array, got {type(value).__name__}")
    check_shape(name, value, shape)
    if value.dtype != dtype:
        raise InputError(f"{name} must be {dtype}, got {value.dtype}")
