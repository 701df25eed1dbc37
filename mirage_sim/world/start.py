"""Start: what a world begins from, checked before anything of it is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, check_shape
from mirage_sim.geometry import check_depth, check_intrinsics, check_pose
from mirage_sim.model.images import check_image
from mirage_sim.model.world_model import WorldModel

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Start:
    """Checked arguments of a reset, on the model's device; they share no memory with the caller's.

    Attributes:
        frames: uint8 [B, H, W, 3], in the host's memory.
        cam2world: First cameras, [B, 4, 4].
        intrinsics: In pixels, [B, 3, 3].
        depth: z-depth in metres, [B, H, W], or `None`.
        seeds: One per world.
    """

    frames: Array
    cam2world: Tensor
    intrinsics: Tensor
    depth: Tensor | None
    seeds: list[int]


def check_start(
    model: WorldModel,
    chosen: Tensor,
    first_frame: Array,
    cam2world: Tensor | Array,
    intrinsics: Tensor | Array | None,
    seeds: Sequence[int] | None,
    depth: Array | Tensor | None,
) -> Start:
    """Check what worlds begin from.

    Args:
        model: Fixes the image size and the default lens.
        chosen: bool [B], which worlds begin; only their poses, depths and lenses are looked at.
        first_frame: uint8 [B, H, W, 3].
        cam2world: [B, 4, 4].
        intrinsics: [B, 3, 3] or [3, 3] in pixels; the model's own if `None`.
        seeds: One per world; 0, 1, … if `None`.
        depth: [B, H, W] in metres, or `None`.

    Returns:
        The checked arguments.

    Raises:
        InputError: If a shape, a pose, a depth or the intrinsics are wrong.
        InputTypeError: If the image is not uint8, or another one is no array.
    """
    height, width = model.config.height, model.config.width
    worlds, rows = len(chosen), chosen.nonzero().flatten().tolist()
    poses = own_floats("cam2world", cam2world, torch.float32, model.device)
    check_shape("cam2world", poses, [worlds, 4, 4])
    check_pose("cam2world", poses[rows])
    frames = check_image("first_frame", first_frame, height, width)
    check_shape("first_frame", frames, [worlds, "H", "W", 3])
    lens = model.intrinsics() if intrinsics is None else intrinsics
    matrix = own_floats("intrinsics", lens, torch.float32, model.device)
    check_shape("intrinsics", matrix, [3, 3] if matrix.ndim == 2 else [worlds, 3, 3])
    matrix = matrix.expand(worlds, 3, 3)
    check_intrinsics("intrinsics", matrix[rows])
    metres = None
    if depth is not None:
        metres = own_floats("depth", depth, torch.float32, model.device)
        check_shape("depth", metres, [worlds, height, width])
        check_depth("depth", metres[rows])
    numbers = list(range(worlds)) if seeds is None else [int(seed) for seed in seeds]
    if len(numbers) != worlds:
        raise InputError(f"seeds must hold {worlds} numbers, got {len(numbers)}")
    if not all(-(2**63) <= number < 2**63 for number in numbers):
        raise InputError(f"seeds must fit into 64 bits, got {numbers}")
    return Start(frames, poses, matrix, metres, numbers)
