"""Noise: what a world draws from. It belongs to the world's seed and to the view, not to the time.

So the same view of the same place is drawn alike whenever it is looked at, also where nothing can be
remembered, as at the edges of things. Frames of one segment differ even where the camera rests. Source: ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

SAME = 1e-3
"""Metres, and entries of a rotation matrix, to which cameras are rounded to count as the same view."""


def view_noise(
    seed: int,
    cam2world: Tensor,  # [T, 4, 4]
    shape: tuple[int, ...],
) -> Tensor:
    """Draw standard normal noise for views of one world.

    Args:
        seed: The world's.
        cam2world: Cameras.
        shape: Of the noise for one view.

    Returns:
        float32 [T, *shape] on the CPU.
    """
    rounded = (cam2world[:, :3].double().cpu() / SAME).round().long()  # [T, 3, 4]
    draws = []
    views: list[str] = []
    for view in rounded:
        views.append(f"{seed} {view.flatten().tolist()}")
        repeats = views.count(views[-1]) - 1  # a camera at rest draws every frame of a segment anew
        named = views[-1] + (f" {repeats}" if repeats else "")
        digest = hashlib.blake2b(named.encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little", signed=True))
        draws.append(torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu"))
    return torch.stack(draws)


def worlds_noise(
    seeds: Sequence[int],
    cam2world: Tensor,  # [b, T, 4, 4]
    shape: tuple[int, ...],
) -> Tensor:
    """Draw what a segment needs, for the flow's start and for the refiner, see `view_noise`.

    Args:
        seeds: One per world.
        cam2world: Cameras.
        shape: Of a latent frame.

    Returns:
        float32 [2, b, T, *shape] on the CPU.
    """
    pairs = zip(seeds, cam2world, strict=True)
    return torch.stack([view_noise(seed, views, (2, *shape)) for seed, views in pairs]).movedim(2, 0)
