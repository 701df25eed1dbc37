"""Protocol: what tells depth and masks of a view. The embedded depth head is one more depth estimator."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class Seen:
    """N views whose depth is asked for.

    Attributes:
        latents: [N, C, h, w].
        geometry: Rays, height and remembered depth as the depth head sees them, [N, 6, h, w].
        known_depth: z-depth that the memory holds, in metres, [N, h, w].
        known: bool [N, h, w], where it holds a surface.
        frames: Pictures in [-1, 1], [N, 3, H, W], or `None` for an estimator that needs none.
        intrinsics: In pixels, [N, 3, 3].
    """

    latents: Tensor
    geometry: Tensor
    known_depth: Tensor
    known: Tensor
    frames: Tensor | None
    intrinsics: Tensor


@dataclass(frozen=True)
class Perceived:
    """What an estimator says of each cell.

    Attributes:
        depth: z-depth in metres, [N, h, w].
        surface: bool [N, h, w], whether there is a surface, or sky.
        sure: bool [N, h, w], whether a surface is fit to remember.
    """

    depth: Tensor
    surface: Tensor
    sure: Tensor


class DepthEstimator(Protocol):
    """Tells depth at latent resolution."""

    needs_frames: bool

    def estimate(self, seen: Seen) -> Perceived:
        """Tell depth and surface of N views, each on its own."""
        ...


@dataclass(frozen=True)
class Segments:
    """Which cells are not to be remembered as surfaces.

    Attributes:
        sky: bool [N, h, w].
        movable: bool [N, h, w], cells that show something that may move.
    """

    sky: Tensor
    movable: Tensor


class Segmenter(Protocol):
    """Tells sky and what may move."""

    def segment(self, frames: Tensor, hw: tuple[int, int]) -> Segments:
        """Segment pictures [N, 3, H, W] in [-1, 1] into cells of a grid `hw`."""
        ...
