"""Refiner: a second, finer flow, from noise to what could be there, among the cells that the memory knows.

The generator draws, in one pass, what is likely to be there: shapes without edges. A small convolutional
U-Net takes that draft as a hint and draws one of the things that could be there, in a few passes along a flow
of its own, x_s = (1 - s)·x + s·noise. It also sees what was carried over from the memory, the rays of the
cells, the camera's height and the remembered depth. It changes only cells of which nothing is known.

Source: ours; the shape is that of U-Net (arXiv 1505.04597), the scaling of its output that of EDM (arXiv
2206.00364).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from mirage_sim.errors import InputError
from mirage_sim.model.depth_head import GEOMETRY_CHANNELS
from mirage_sim.model.resampler import normalise_cells


@dataclass(frozen=True)
class RefinerConfig:
    """Shape of the refiner.

    Attributes:
        channels: Latent channels C.
        widths: Channels of the hidden layers, from the latent grid to the coarsest; each level has half the
            rows and columns of the one before.
        blocks: Residual blocks of two 3x3 convolutions, at every level, on the way down and up.
    """

    channels: int = 32
    widths: tuple[int, ...] = field(default=(128, 192, 256))
    blocks: int = 2

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not self.widths or min(self.channels, self.blocks, *self.widths) < 1:
            raise InputError(f"refiner sizes must be at least 1, got {self}")


class _Block(nn.Module):
    """Residual block, normalised per cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.there = nn.Conv2d(width, width, 3, padding=1)
        self.back = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.back(silu(self.there(normalise_cells(hidden))))  # type: ignore[no-any-return]


class Refiner(nn.Module):
    """A small U-Net on the latent grid."""

    def __init__(self, config: RefinerConfig | None = None) -> None:
        """Build the network.

        Args:
            config: Its shape.
        """
        super().__init__()
        self.config = config if config is not None else RefinerConfig()
        widths, steps = self.config.widths, list(pairwise(self.config.widths))

        def level(width: int) -> nn.Module:
            return nn.Sequential(*(_Block(width) for _ in range(self.config.blocks)))

        self.first = nn.Conv2d(2 * self.config.channels + 2 + GEOMETRY_CHANNELS, widths[0], 3, padding=1)
        self.descend = nn.ModuleList(level(width) for width in widths)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.ascend = nn.ModuleList(level(width) for width in widths[:-1])
        self.last = nn.Conv2d(widths[0], self.config.channels, 3, padding=1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, noisy: Tensor, share: Tensor, draft: Tensor, known: Tensor, geometry: Tensor) -> Tensor:
        """Tell what noisy latents come from.

        Args:
            noisy: Latents on the flow, [N, C, h, w]; h and w divisible by 2 a level.
            share: Share s of noise in unknown cells, [N, 1, 1, 1].
            draft: What was carried over and imagined, [N, C, h, w].
            known: Which cells the memory knows, bool [N, 1, h, w].
            geometry: Rays, height and remembered depth, [N, 6, h, w], see `depth_geometry`.

        Returns:
            float32 [N, C, h, w], as carried over in known cells.
        """
        seen = [torch.where(known, draft, noisy), share * ~known, draft, known.float(), geometry]
        hidden = self.first(torch.cat(seen, dim=1).to(self.first.weight.dtype))
        passed = []
        for place, level in enumerate(self.descend):
            hidden = level(hidden)
            if place < len(self.shrink):
                passed.append(hidden)
                hidden = self.shrink[place](hidden)
        for place in reversed(range(len(self.ascend))):
            hidden = self.ascend[place](self.grow[place](hidden) + passed[place])
        keep, add = output_scales(share)
        told = keep * noisy + add * self.last(silu(hidden)).float()
        return torch.where(known, draft, told)

    def refine(self, draft: Tensor, known: Tensor, geometry: Tensor, noise: Tensor, steps: int) -> Tensor:
        """Draw unknown cells anew along the flow.

        Args:
            draft: What was carried over and imagined, [B, T, C, h, w].
            known: Which cells the memory knows, bool [B, T, h, w].
            geometry: Of the views, [B * T, 6, h, w].
            noise: Standard normal noise, [B, T, C, h, w]; other noise draws something else.
            steps: Passes, from noise down in even steps; with 0 the draft stays.

        Returns:
            float32 [B, T, C, h, w].
        """
        given, frames = known.flatten(0, 1)[:, None], draft.flatten(0, 1)
        told, noisy = frames, noise.flatten(0, 1)
        for left in range(steps, 0, -1):
            share = torch.full((len(frames), 1, 1, 1), left / steps, device=draft.device, dtype=torch.float32)
            told = self(noisy, share, frames, given, geometry)
            noisy = torch.lerp(told, noisy, (left - 1) / left)
        return told.view_as(draft)


def output_scales(share: Tensor) -> tuple[Tensor, Tensor]:
    """What noisy latents of unit variance tell of clean ones, and how much they leave open.

    Args:
        share: Share s of noise.

    Returns:
        The best factor of the noisy latents, (1 - s) / v with v = (1 - s)² + s², and the standard deviation
        of what it misses, s / √v.

    Source: EDM (arXiv 2206.00364), for straight flows.
    """
    variance = (1.0 - share).square() + share.square()
    return (1.0 - share) / variance, share / variance.sqrt()
