"""Recording, camera files: RealEstate10K's text format, one line a frame.

The first line names the source. Every other one holds a timestamp, fx fy cx cy as shares of width and height,
two numbers without a meaning, and the first three rows of world2cam.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError, InputError, check_shape
from mirage_sim.files import made_folder, whole_file
from mirage_sim.geometry import check_pose, invert

_NUMBERS = 19


@dataclass(frozen=True)
class CameraFile:
    """Cameras of a video.

    Attributes:
        source: Where the video comes from.
        timestamps: One per frame, microseconds.
        lens: fx, fy, cx, cy of every frame as shares of width and height, float32 [N, 4].
        cam2world: float32 [N, 4, 4]; the unit of length is the file's own.
    """

    source: str
    timestamps: list[int]
    lens: Tensor
    cam2world: Tensor

    def intrinsics(self, height: int, width: int) -> Tensor:
        """Intrinsics [N, 3, 3] in pixels of images of this size."""
        matrix = torch.eye(3).repeat(len(self.lens), 1, 1)
        matrix[:, 0, 0], matrix[:, 1, 1] = width * self.lens[:, 0], height * self.lens[:, 1]
        matrix[:, 0, 2], matrix[:, 1, 2] = width * self.lens[:, 2], height * self.lens[:, 3]
        return matrix


def read_cameras(path: Path) -> CameraFile:
    """Read a camera file.

    Args:
        path: Text file.

    Returns:
        Its cameras.

    Raises:
        FileFormatError: If it is missing or a line is none of this format; the message names it.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} must be a camera file, got {error}") from error
    rows: list[list[float]] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        words = line.split()
        try:
            row = [float(word) for word in words]
        except ValueError as error:
            raise FileFormatError(f"{path}, line {number}, must hold numbers, got {error}") from error
        if len(row) != _NUMBERS:
            raise FileFormatError(f"{path}, line {number}, must hold {_NUMBERS} numbers, got {len(row)}")
        rows.append(row)
    if not rows:
        raise FileFormatError(f"{path} must hold at least one camera after its first line, got none")
    table = torch.tensor(rows, dtype=torch.float64)  # [N, 19]
    world2cam = torch.eye(4, dtype=torch.float64).repeat(len(rows), 1, 1)
    world2cam[:, :3] = table[:, 7:].reshape(-1, 3, 4)
    try:
        check_pose("world2cam", world2cam)
    except InputError as error:
        raise FileFormatError(f"{path} must hold rigid cameras: {error}") from error
    return CameraFile(
        lines[0].strip(), [int(row[0]) for row in rows], table[:, 1:5].float(), invert(world2cam).float()
    )


def write_cameras(path: Path, cameras: CameraFile) -> Path:
    """Write a camera file, whole or not at all.

    Args:
        path: Text file; an existing one is replaced.
        cameras: What it holds.

    Returns:
        The path.

    Raises:
        InputError: If the parts differ in length.
        FileWriteError: If it cannot be written.
    """
    count = len(cameras.timestamps)
    check_shape("lens", cameras.lens, [count, 4])
    check_shape("cam2world", cameras.cam2world, [count, 4, 4])
    world2cam = invert(cameras.cam2world.double())[:, :3].flatten(1)  # [N, 12]
    lines = [cameras.source.replace("\n", " ")]
    for time, lens, matrix in zip(cameras.timestamps, cameras.lens.tolist(), world2cam.tolist(), strict=True):
        lines.append(" ".join([str(time), *(f"{value:.9f}" for value in (*lens, 0.0, 0.0, *matrix))]))
    with made_folder(path.parent), whole_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
