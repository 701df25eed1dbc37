"""Condition: what was read from the memory, laid out as the channels that the branch embeds.

The published branch sees the read latents and the codec's encoding of an all-ones video (a constant), see
`published_condition`. Ours sees the read latents, the mask, and what a nearest-cell read would lose: where in
the cell the token fell, how its scale differs from the present one, from which side it was seen, and how far
it is.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead

CONTEXT_CHANNELS = 16  # translation, rotation, up, height


def build_condition(read: MemoryRead, extras: bool = True) -> Tensor:
    """Stack the read latents and the extra channels; unknown cells are zero in all of them.

    Args:
        read: What the memory holds for B worlds and T frames of h x w cells.
        extras: Whether offset, scale, view and depth are told, or only latents and mask.

    Returns:
        float32 [B, T, C + 6, h, w].
    """
    known = read.mask[:, :, None].float()  # [B, T, 1, h, w]
    geometry = torch.cat(
        [
            2.0 * read.offset,
            read.log_scale[:, :, None].clamp(-2, 2),
            4.0 * (1.0 - read.view_cos[:, :, None]),
            read.depth[:, :, None].clamp(min=0.05).log() - 1.0,
        ],
        dim=2,
    )  # [B, T, 5, h, w]
    channels = [read.latents.float() * known, known, geometry * known * float(extras)]
    return torch.cat(channels, dim=2)


def published_condition(read: MemoryRead, constant: Tensor) -> Tensor:
    """Lay out what the published branch sees; unknown cells are zero in the read latents.

    Args:
        read: What the memory holds for B worlds and T frames of h x w cells.
        constant: The codec's latents of a white video, [T, C, h, w].

    Returns:
        float32 [B, T, 2C, h, w].

    Source: paper's reference implementation, input of the memory branch.
    """
    known = read.latents.float() * read.mask[:, :, None]
    return torch.cat([known, constant.expand_as(known)], dim=2)


def motion_context(
    cam2world: Tensor,  # [B, T, 4, 4]
    preceding: Tensor,  # [B, P, 4, 4]
    width: int,
) -> Tensor:
    """Cameras as context tokens for a backbone without text: one token per (target, preceding) pair.

    Args:
        cam2world: Target poses.
        preceding: Poses of the preceding frames.
        width: Channels of a context token, at least 16.

    Returns:
        float32 [B, T * P, width]: translation (in quarter metres) and rotation minus identity (times four) of
        the target camera in the preceding camera's frame; up in the target camera's frame; its height.

    Raises:
        InputError: If `width` is below 16.
    """
    if width < CONTEXT_CHANNELS:
        raise InputError(f"width must be at least {CONTEXT_CHANNELS}, got {width}")
    rotation = preceding[:, None, :, :3, :3].transpose(-1, -2)  # [B, 1, P, 3, 3]
    turn = rotation @ cam2world[:, :, None, :3, :3]  # [B, T, P, 3, 3]
    shift = cam2world[:, :, None, :3, 3:] - preceding[:, None, :, :3, 3:]
    moved = rotation @ shift  # [B, T, P, 3, 1]
    identity = torch.eye(3, device=turn.device, dtype=torch.float32)
    level = cam2world[:, :, None, 2].expand(*moved.shape[:3], 4)  # up seen by the camera, and its height
    motion = torch.cat(
        [4.0 * moved.flatten(-2), 4.0 * (turn - identity).flatten(-2), level], dim=-1
    )  # [B, T, P, 16]
    return torch.nn.functional.pad(motion.flatten(1, 2), (0, width - CONTEXT_CHANNELS))
