"""Depth head: depth at latent resolution, straight from the latent; nothing is decoded in order to write.

It also sees the rays of the cells, the camera's height and the depth that the memory already holds, so that
the scale of a world does not drift. Each cell gets a depth, a spread (how unsure the head is) and a
probability that there is a surface at all (sky has none).

Source: ours; the paper decodes to pixels and runs a depth estimator on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.perception.protocol import Perceived, Seen

GEOMETRY_CHANNELS = 6  # log remembered depth, its mask, ray z, level length, length, camera height
LOG_DEPTH_CENTRE = 1.0  # log metres: about 2.7 m


@dataclass(frozen=True)
class DepthHeadConfig:
    """Shape of the head.

    Attributes:
        channels: Latent channels C.
        width: Channels of the hidden layers.
        blocks: Residual blocks of two 3x3 convolutions.
    """

    channels: int = 32
    width: int = 96
    blocks: int = 4

    def __post_init__(self) -> None:
        """Check the ranges."""
        if min(self.channels, self.width, self.blocks) < 1:
            raise InputError(f"depth head sizes must be at least 1, got {self}")


class DepthPrediction(NamedTuple):
    """What the head says of each cell; every field is float32 [N, h, w].

    Attributes:
        depth: z-depth in metres.
        spread: Expected absolute error of log depth.
        surface: Probability that there is a surface.
    """

    depth: Tensor
    spread: Tensor
    surface: Tensor


class DepthHead(nn.Module):
    """A small residual convolutional network on the latent grid."""

    def __init__(self, config: DepthHeadConfig | None = None) -> None:
        """Build the head with random weights.

        Args:
            config: Its shape.
        """
        super().__init__()
        self.config = config if config is not None else DepthHeadConfig()
        width = self.config.width
        self.first = nn.Conv2d(self.config.channels + GEOMETRY_CHANNELS, width, 3, padding=1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.GroupNorm(8 if width % 8 == 0 else 1, width),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=1, dilation=1),
                nn.SiLU(),
                nn.Conv2d(width, width, 3, padding=2, dilation=2),
            )
            for _ in range(self.config.blocks)
        )
        self.last = nn.Conv2d(width, 3, 1)

    def forward(self, latents: Tensor, geometry: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Predict raw outputs.

        Args:
            latents: [N, C, h, w].
            geometry: [N, 6, h, w], see `depth_geometry`.

        Returns:
            Log depth, log spread and surface logit, float32 [N, h, w] each.
        """
        dtype = self.first.weight.dtype
        hidden = self.first(torch.cat([latents, geometry], dim=1).to(dtype))
        for block in self.blocks:
            hidden = hidden + block(hidden)
        log_depth, log_spread, surface = self.last(hidden).float().unbind(dim=1)
        return log_depth + LOG_DEPTH_CENTRE, log_spread.clamp(-6.0, 2.0), surface

    @torch.no_grad()
    def predict(self, latents: Tensor, geometry: Tensor) -> DepthPrediction:
        """Predict metres, spread and surface probability; arguments as for `forward`."""
        log_depth, log_spread, surface = self(latents, geometry)
        return DepthPrediction(log_depth.exp(), log_spread.exp(), surface.sigmoid())


class LatentDepth:
    """The depth head as a `DepthEstimator`."""

    needs_frames = False

    def __init__(self, head: DepthHead, max_spread: float) -> None:
        """Wrap a head.

        Args:
            head: Predicts.
            max_spread: Cells whose depth is less certain than this, in log metres, are not sure.
        """
        self._head, self._max_spread = head, max_spread

    def estimate(self, seen: Seen) -> Perceived:
        """Tell depth and surface of N views from their latents."""
        said = self._head.predict(seen.latents, seen.geometry)
        return Perceived(said.depth, said.surface > 0.5, said.spread < self._max_spread)


def depth_geometry(
    known_depth: Tensor,  # [N, h, w]
    known: Tensor,  # [N, h, w] bool
    rays: Tensor,  # [N, h, w, 3]
    height: Tensor,  # [N]
) -> Tensor:
    """Stack what the head sees beside the latent.

    Args:
        known_depth: Depth that the memory holds, metres.
        known: Where it holds one.
        rays: World directions with camera z component 1 (`geometry.cameras.ray_directions`).
        height: Camera height above z = 0, metres.

    Returns:
        float32 [N, 6, h, w].
    """
    log_depth = torch.where(known, known_depth.clamp(min=0.05).log() - LOG_DEPTH_CENTRE, 0.0)
    level = rays[..., :2].square().sum(dim=-1).sqrt()  # horizontal length of the ray: yaw does not matter
    length = rays.square().sum(dim=-1).sqrt()
    tall = (height - 1.4)[:, None, None].expand_as(log_depth)
    return torch.stack([log_depth, known.float(), rays[..., 2], level, length, tall], dim=1)


def depth_loss(
    outputs: tuple[Tensor, Tensor, Tensor],  # three of [N, h, w]
    depth: Tensor,  # [N, h, w]
) -> Tensor:
    """Negative log likelihood of a Laplace distribution over log depth, plus cross entropy of the surface.

    Args:
        outputs: What `DepthHead.forward` returned.
        depth: True depth, 0 where there is no surface.

    Returns:
        Scalar.
    """
    log_depth, log_spread, surface = outputs
    there = depth > 0
    error = (log_depth - depth.clamp(min=0.05).log()).abs()
    likelihood = (error * torch.exp(-log_spread) + log_spread)[there].mean()
    return likelihood + F.binary_cross_entropy_with_logits(surface, there.float())
