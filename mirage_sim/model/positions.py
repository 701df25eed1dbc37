"""Rotary positions of the sequence `[references | target | preceding]`.

Target and preceding frames share time indices 0 … T+P-1. References are told apart by a time index that is
negative (-R … -1) and a height index shifted by one frame height (h … 2h-1).

Source: paper, section on the generator's sequence.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def sequence_positions(references: int, frames: int, height: int, width: int) -> Tensor:
    """Integer positions (time, height, width) of every token.

    Args:
        references: Number of reference frames R.
        frames: Number of target and preceding frames T + P.
        height: Tokens per column of a frame.
        width: Tokens per row of a frame.

    Returns:
        int64 [(R + T + P) * height * width, 3].
    """
    time = torch.arange(-references, frames, dtype=torch.int64, device="cpu")
    grid = torch.stack(
        torch.meshgrid(
            time,
            torch.arange(height, dtype=torch.int64, device="cpu"),
            torch.arange(width, dtype=torch.int64, device="cpu"),
            indexing="ij",
        ),
        dim=-1,
    )  # [R+T+P, h, w, 3]
    grid[:references, ..., 1] += height
    return grid.reshape(-1, 3)


def rotary_embedding(positions: Tensor, head_dim: int, theta: float = 10000.0) -> tuple[Tensor, Tensor]:
    """Cosines and sines in the layout of diffusers' Wan attention, for any integer position.

    Args:
        positions: int64 [S, 3] (time, height, width); negative values are allowed.
        head_dim: Channels D of one attention head.
        theta: Base of the frequencies.

    Returns:
        Two float32 tensors [1, S, 1, D]: each frequency stands twice, in neighbouring channels.
    """
    side = 2 * (head_dim // 6)
    parts = []
    for axis, dim in enumerate((head_dim - 2 * side, side, side)):
        frequency = theta ** (-torch.arange(0, dim, 2, dtype=torch.float64, device="cpu") / dim)
        parts.append(positions[:, axis, None].double() * frequency.to(positions.device))  # [S, dim/2]
    angle = torch.cat(parts, dim=-1).repeat_interleave(2, dim=-1)[None, :, None]  # [1, S, 1, D]
    return angle.cos().float(), angle.sin().float()


@lru_cache(maxsize=32)
@torch.inference_mode(False)  # kept for training, too
def sequence_rotary(
    references: int, frames: int, height: int, width: int, head_dim: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Rotary embedding of a sequence, computed once; arguments as for `sequence_positions`."""
    return rotary_embedding(sequence_positions(references, frames, height, width).to(device), head_dim)
