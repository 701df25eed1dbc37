"""Recording, camera files: RealEstate10K's text format, one line a frame.

The first line names the source; some files lack it. Every other one holds a timestamp, fx fy cx cy as shares
of width and height, two numbers without a meaning, and the first three rows of world2cam.
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
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
        source: Where the video comes from; empty if the file does not tell.
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
        matrix = torch.eye(3, dtype=torch.float32, device="cpu").repeat(len(self.lens), 1, 1)
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
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} must be a camera file, got {error}") from error
    headed = bool(lines) and not _is_camera(lines[0])
    rows: list[list[float]] = []
    times: list[int] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (headed and number == 1):
            continue
        words = line.split()
        if len(words) != _NUMBERS:
            raise FileFormatError(f"{path}, line {number}, must hold {_NUMBERS} numbers, got {len(words)}")
        try:
            times.append(_timestamp(words[0]))
            rows.append([float(word) for word in words[1:]])
        except ValueError as error:
            raise FileFormatError(f"{path}, line {number}, must hold numbers, got {error}") from error
    if not rows:
        raise FileFormatError(f"{path} must hold at least one camera, got none")
    table = torch.tensor(rows, dtype=torch.float64, device="cpu")  # [N, 18]
    world2cam = torch.eye(4, dtype=torch.float64, device="cpu").repeat(len(rows), 1, 1)
    world2cam[:, :3] = table[:, 6:].reshape(-1, 3, 4)
    try:
        check_pose("world2cam", world2cam)
    except InputError as error:
        raise FileFormatError(f"{path} must hold rigid cameras: {error}") from error
    if not bool(((table[:, :2] > 0) & table[:, :4].isfinite().all(dim=1, keepdim=True)).all()):
        raise FileFormatError(f"{path} must hold positive focal lengths and finite centres, got others")
    source = lines[0].strip() if headed else ""
    return CameraFile(source, times, table[:, :4].float(), invert(world2cam).float())


def write_cameras(path: Path, cameras: CameraFile) -> Path:
    """Write a camera file, whole or not at all.

    Args:
        path: Text file; an existing one is replaced.
        cameras: What it holds.

    Returns:
        The path.

    Raises:
        InputError: If the parts differ in length, or the source would be read as a camera.
        FileWriteError: If it cannot be written.
    """
    source = " ".join(cameras.source.splitlines())
    if _is_camera(source):
        raise InputError(f"source must not be a line of numbers, got {source!r}")
    count = len(cameras.timestamps)
    check_shape("lens", cameras.lens, [count, 4])
    check_shape("cam2world", cameras.cam2world, [count, 4, 4])
    world2cam = invert(cameras.cam2world.double())[:, :3].flatten(1)  # [N, 12]
    lines = [source]
    for time, lens, matrix in zip(cameras.timestamps, cameras.lens.tolist(), world2cam.tolist(), strict=True):
        lines.append(" ".join([str(time), *(f"{value:.9f}" for value in (*lens, 0.0, 0.0, *matrix))]))
    with made_folder(path.parent), whole_file(path) as temporary:
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _is_camera(line: str) -> bool:
    """Tell a camera, even a damaged one, from the line that names the source."""
    words = line.split()
    numbers = [_is_number(word) for word in words]
    return len(words) > 1 and (numbers[0] or sum(numbers) > _NUMBERS // 2)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _timestamp(word: str) -> int:
    """Read whole microseconds exactly: a float has no room for those of a clock."""
    try:
        time = Decimal(word)
    except InvalidOperation as error:
        raise ValueError(f"the timestamp {word!r}") from error
    if not time.is_finite() or abs(time) >= 2**63 or time != time.to_integral_value():
        raise ValueError(f"the timestamp {word!r}, which is no whole number of microseconds")
    return int(time)
