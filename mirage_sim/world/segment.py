"""Segment: what one generation call produces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor


@dataclass(frozen=True)
class Segment:
    """T latent frames of B worlds; rows of worlds that were not asked for are zero.

    Attributes:
        frames: uint8 [B, F, H, W, 3], or `None` if they were not decoded.
        latents: float32 [B, T, C, h, w].
        depth: float32 [B, T, h, w], z-depth in metres, 0 where there is no surface.
        offset: float32 [B, T, 2, h, w], where in its cell the surface of that depth lies, (u, v) from the
            cell's centre; 0 for what was not remembered.
        known: bool [B, T, h, w], cells that the memory held before.
        coverage: float32 [B, T], share of the view that was remembered.
        new_area: float32 [B], newly seen surface in square metres.
        cam2world: float32 [B, T, 4, 4], the cameras.
        timings_ms: Milliseconds of read, generate, depth, write and decode for the whole call.
    """

    frames: np.ndarray[Any, Any] | None
    latents: Tensor
    depth: Tensor
    offset: Tensor
    known: Tensor
    coverage: Tensor
    new_area: Tensor
    cam2world: Tensor
    timings_ms: dict[str, float]
