"""Resampler: what the memory knows, brought onto the grid of the present view.

A nearest-cell read gives every cell the token that fell into it as it was written: up to half a cell aside,
at another scale, from another side. A convolutional network draws it anew for the present view from the
tokens around and from the extra channels of the condition. It looks at nothing but what was read, so that
the same place read alike comes back alike, whatever is imagined beside it. What is read just as it was
written stays as it is.

Source: ours; the paper leaves this to its transformer.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead
from mirage_sim.model.config import condition_channels

EXACT = 0.02
"""Change of a token (cells, log scale, four times 1 - cosine) up to which it counts as read exactly."""


@dataclass(frozen=True)
class ResamplerConfig:
    """Shape of the resampler.

    Attributes:
        channels: Latent channels C.
        width: Channels of the hidden layers.
        blocks: Residual blocks of two 3x3 convolutions.
    """

    channels: int = 32
    width: int = 128
    blocks: int = 4

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.channels, self.width, self.blocks) < 1:
            raise InputError(f"resampler sizes must be at least 1, got {self}")


def normalise_cells(hidden: Tensor) -> Tensor:
    """Divide every cell of [N, C, h, w] by the root of its mean square over the channels."""
    cells = hidden.movedim(1, -1)
    return F.rms_norm(cells, cells.shape[-1:]).movedim(-1, 1)


class _Block(nn.Module):
    """Residual block whose gates let offset and scale choose among the tokens around; normalised per cell."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gated = nn.Conv2d(width, 2 * width, 3, padding=1)
        self.back = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return hidden + self.back(F.glu(self.gated(normalise_cells(hidden)), dim=1))  # type: ignore[no-any-return]


class Resampler(nn.Module):
    """A small residual convolutional network on the latent grid; untrained, it returns what was read."""

    def __init__(self, config: ResamplerConfig | None = None) -> None:
        """Build the network.

        Args:
            config: Its shape.
        """
        super().__init__()
        self.config = config if config is not None else ResamplerConfig()
        width = self.config.width
        self.first = nn.Conv2d(condition_channels(self.config.channels), width, 3, padding=1)
        self.blocks = nn.Sequential(*(_Block(width) for _ in range(self.config.blocks)))
        self.last = nn.Conv2d(width, self.config.channels, 1)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)  # type: ignore[arg-type]

    def forward(self, condition: Tensor) -> Tensor:
        """Draw latents for the present view.

        Args:
            condition: What was read, [B, T, C + 6, h, w], see `build_condition`.

        Returns:
            float32 [B, T, C, h, w]; meaningless in cells of which nothing is known.
        """
        frames = condition.flatten(0, 1)
        hidden = self.blocks(self.first(frames.to(self.first.weight.dtype)))
        drawn: Tensor = frames[:, : self.config.channels] + self.last(hidden).float()
        return drawn.reshape(*condition.shape[:2], *drawn.shape[1:])

    def carry(self, read: MemoryRead, condition: Tensor) -> Tensor:
        """Carry what was read over to the present view; exact tokens stay.

        Args:
            read: What the memory holds for B worlds and T frames of h x w cells.
            condition: The same as channels, [B, T, C + 6, h, w], see `build_condition`.

        Returns:
            float32 [B, T, C, h, w]; meaningless in cells of which nothing is known.
        """
        drawn: Tensor = self(condition)
        return torch.where(is_exact(read)[:, :, None], read.latents.float(), drawn)


def is_exact(read: MemoryRead) -> Tensor:
    """Tell which cells read their token from where it was written.

    Args:
        read: What the memory holds, T frames of B worlds, h x w cells.

    Returns:
        bool [B, T, h, w].

    Source: ours.
    """
    moved = read.offset.abs().amax(dim=2)  # [B, T, h, w], cells
    change = torch.maximum(torch.maximum(moved, read.log_scale.abs()), 4.0 * (1.0 - read.view_cos))
    return read.mask & (change <= EXACT)
