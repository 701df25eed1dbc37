"""Checks: what every verb of the memory asks of its arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import check_tensor, is_tensor, own_array
from mirage_sim.errors import InputError, check_finite, check_shape


def check_cameras(
    cam2world: Tensor,  # [B, T, 4, 4]
    intrinsics: Tensor,  # [B, T, 3, 3]
    num_worlds: int,
) -> None:
    """Raise unless cameras fit a memory.

    Args:
        cam2world: Cameras `[B, T, 4, 4]`.
        intrinsics: Intrinsics `[B, T, 3, 3]`.
        num_worlds: Number of worlds B.

    Raises:
        InputTypeError: If one is no tensor.
        InputError: If a shape or dtype is wrong or a value is not finite.
    """
    check_tensor("cam2world", cam2world, [num_worlds, "T", 4, 4])
    check_tensor("intrinsics", intrinsics, [num_worlds, cam2world.shape[1], 3, 3])
    check_finite("cam2world", cam2world)
    check_finite("intrinsics", intrinsics)


def world_mask(
    worlds: Tensor | np.ndarray[Any, Any] | Sequence[bool] | None, num_worlds: int, device: torch.device
) -> Tensor:
    """Check a mask of worlds.

    Args:
        worlds: Booleans `[B]`, or `None` for all.
        num_worlds: Number of worlds B.
        device: Where the mask is to be.

    Returns:
        Boolean `[B]`.

    Raises:
        InputTypeError: If it is no array.
        InputError: If the shape or dtype is wrong.
    """
    if worlds is None:
        return torch.ones(num_worlds, dtype=torch.bool, device=device)
    mask = worlds if is_tensor(worlds) else torch.from_numpy(own_array("worlds", worlds))
    check_shape("worlds", mask, [num_worlds])
    if mask.dtype != torch.bool:
        raise InputError(f"worlds must be bool, got {mask.dtype}")
    return mask.to(device)


def world_list(name: str, index: Sequence[int] | Tensor, num_worlds: int) -> list[int]:
    """Check an index of worlds.

    Args:
        name: Argument name for the message.
        index: Worlds by number; repeats are allowed.
        num_worlds: Number of worlds B.

    Returns:
        The worlds as a list.

    Raises:
        InputError: If the index is empty or names no world.
    """
    worlds = [int(world) for world in index]
    if not worlds or min(worlds) < 0 or max(worlds) >= num_worlds:
        raise InputError(f"{name} must hold worlds in 0..{num_worlds - 1}, got {worlds}")
    return worlds


def world_pairs(
    worlds: Sequence[int] | Tensor, num_worlds: int, source_worlds: Sequence[int] | Tensor, num_sources: int
) -> tuple[list[int], list[int]]:
    """Check which worlds are replaced by which worlds of another memory.

    Args:
        worlds: Worlds to replace, each once.
        num_worlds: Number of worlds of their memory.
        source_worlds: Worlds that replace them, as many.
        num_sources: Number of worlds of the other memory.

    Returns:
        Both as lists.

    Raises:
        InputError: If an index does not fit.
    """
    target = world_list("worlds", worlds, num_worlds)
    origin = world_list("source_worlds", source_worlds, num_sources)
    if len(target) != len(origin) or len(set(target)) != len(target):
        raise InputError(f"worlds must name as many different worlds as source_worlds, got {target}")
    return target, origin
