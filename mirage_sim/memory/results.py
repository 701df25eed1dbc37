"""Results: what the memory answers to a read, a write and a question about its size."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class MemoryRead:
    """What the memory holds for target cameras; unknown cells are zero in everything.

    Attributes:
        latents: Tokens `[B, T, C, h, w]`, float32.
        mask: Boolean `[B, T, h, w]`, true where the memory knows the cell.
        depth: Z-depth of the entry `[B, T, h, w]` in metres.
        offset: Where the entry fell `[B, T, 2, h, w]`, (u, v) from the cell's centre in [-0.5, 0.5], or up to
            1.5 for one that covers the cell from a neighbouring one.
        log_scale: `[B, T, h, w]`, log of the footprint at writing over the present cell's; positive is
            coarser than the present view asks for, negative finer.
        view_cos: `[B, T, h, w]`, cosine between the directions in which the entry was and is now seen.
    """

    latents: Tensor
    mask: Tensor
    depth: Tensor
    offset: Tensor
    log_scale: Tensor
    view_cos: Tensor

    def frames(self, chosen: slice) -> MemoryRead:
        """Give what was read for some of the T frames."""
        return MemoryRead(**{name: value[:, chosen] for name, value in vars(self).items()})

    def worlds(self, chosen: Tensor | slice) -> MemoryRead:
        """Give what was read for some of the B worlds."""
        return MemoryRead(**{name: value[chosen] for name, value in vars(self).items()})

    @classmethod
    def nothing(cls, worlds: int, frames: int, shape: tuple[int, int, int], device: Any) -> MemoryRead:
        """The answer of an empty memory: nothing known in any cell of any frame."""

        def zeros(*parts: int) -> Tensor:
            return torch.zeros(worlds, frames, *parts, *shape[1:], device=device, dtype=torch.float32)

        return cls(zeros(shape[0]), zeros().bool(), zeros(), zeros(2), zeros(), zeros())


@dataclass(frozen=True)
class SurfacePatches:
    """Where one world's memory holds surface, as patches that face the view in which they were written.

    Attributes:
        positions: World positions of their centres `[N, 3]` in metres.
        footprint: Their width and height `[N]` in metres.
        view_dir: Unit directions `[N, 3]` from the camera that saw them.
    """

    positions: Tensor
    footprint: Tensor
    view_dir: Tensor


@dataclass(frozen=True)
class References:
    """Earlier views for the generator to look at.

    Attributes:
        views: Latents of all kept views `[B, K, C, h, w]`.
        index: int64 `[B, R]`, places of the chosen ones among them, best first.
        valid: Boolean `[B, R]`, which of those are references; these come first.
    """

    views: Tensor
    index: Tensor
    valid: Tensor


@dataclass(frozen=True)
class WriteReport:
    """What a write did.

    Attributes:
        written: Boolean `[B, T, h, w]`, tokens that became entries.
        new_area: Surface `[B]` in square metres, facing the camera, of written cells whose surface the memory
            did not hold at all. A gap between two cells of the surface held is no new surface.
    """

    written: Tensor
    new_area: Tensor


@dataclass(frozen=True)
class MemoryStats:
    """Size of the memory; a world's figures do not depend on its batch-mates.

    Attributes:
        entries: int64 `[B]`, entries of every world.
        bytes: int64 `[B]`, bytes of those entries and of the kept keyframes and glimpses.
        entry_bytes: int64 `[B]`, bytes of the entries alone.
    """

    entries: Tensor
    bytes: Tensor
    entry_bytes: Tensor
