"""Start: what a world begins from, checked before anything of it is touched."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, check_shape
from mirage_sim.geometry import check_depth, check_intrinsics, check_pose, downsample_depth
from mirage_sim.memory import MemoryRead
from mirage_sim.model.images import check_image
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world.imagine import perceive_depth
from mirage_sim.world.views import Views, view_geometry

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


def first_depth(
    model: WorldModel,
    latents: Tensor,  # [b, 1, C, h, w]
    frames: Tensor,  # [b, 1, 3, H, W]
    known: Tensor | None,  # [b, 1, H, W]
    views: Views,
    intrinsics: Tensor,  # [b, 3, 3]
) -> tuple[Tensor, Tensor]:
    """Depth of first frames: as given, predicted where it is unknown.

    Args:
        model: Networks and settings.
        latents: The encoded frames.
        frames: The frames, in [-1, 1].
        known: z-depth in metres, 0 unknown, or `None`.
        views: Their cameras, intrinsics in cells.
        intrinsics: In pixels.

    Returns:
        z-depth [b, 1, h, w] in metres and bool [b, 1, h, w]: fit to remember, see `perceive_depth`.
    """
    given = None
    read = MemoryRead.nothing(len(latents), 1, model.latent_shape, latents.device)
    if known is not None:
        given = downsample_depth(known[:, 0], model.codec.spatial_stride)[:, None]  # [b, 1, h, w]
        read = replace(read, depth=given, mask=given > 0)
    geometry = view_geometry(model.config.memory, read, *views)
    depth, trusted = perceive_depth(model, latents, read, geometry, frames, intrinsics)
    if given is not None:
        trusted = trusted & (read.mask | model.config.memory.is_sky(depth))
    return depth, trusted
