"""Sampler: along the flow from its start to latents, on diffusers' schedulers.

Where nothing is known the flow starts at pure noise. Where the memory knows a token, it starts at what was
read with a share f of noise, (1 - f)·read + f·noise, so that a remembered place is carried over and not
dreamt anew. The share falls to zero where the token is read just as it was written; there it stays as it is.
The noise of known tokens is the same at every step, so that two visits draw alike from what they read alike.
Both are straight flows x_σ = (1 - σ)·x + σ·start with velocity `start - x`, so every flow scheduler fits; the
network is told the share of noise in a token, f·σ.

Source: paper, section on sampling; flows that start at the memory are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead

STILL_SEED = 0
"""Seed of the noise in known tokens."""
EXACT, MOVED = 0.02, 0.25
"""Change of a token (cells, log scale) up to which it counts as read exactly, from which as wholly moved."""


@dataclass(frozen=True)
class SamplerConfig:
    """How latents are drawn.

    Attributes:
        steps: Passes through the network.
        shift: Shift s of the noise levels, σ' = sσ / (1 + (s - 1)σ).
        scheduler: "euler" for few steps, "unipc" for the full-size model.
        known_fraction: Largest share f of noise in the start of tokens that the memory knows; 1 starts them
            at noise, exact or not.
    """

    steps: int = 2
    shift: float = 1.0
    scheduler: str = "euler"
    known_fraction: float = 0.25

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1:
            raise InputError(f"steps must be at least 1, got {self.steps}")
        if self.scheduler not in ("euler", "unipc"):
            raise InputError(f'scheduler must be "euler" or "unipc", got {self.scheduler!r}')
        if not 0.0 <= self.known_fraction <= 1.0:
            raise InputError(f"known_fraction must be in [0, 1], got {self.known_fraction}")


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1: sσ / (1 + (s - 1)σ)."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def make_scheduler(config: SamplerConfig, device: torch.device) -> Any:
    """Build a scheduler whose levels go from 1 down to 0 in `config.steps` steps.

    Args:
        config: Steps, shift and kind.
        device: Where the levels live.

    Returns:
        A diffusers scheduler with its timesteps set.
    """
    if config.scheduler == "unipc":
        scheduler = UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=config.shift
        )
        scheduler.set_timesteps(config.steps, device=device)
        return scheduler
    levels = torch.linspace(1.0, 1.0 / config.steps, config.steps)
    scheduler = FlowMatchEulerDiscreteScheduler(shift=config.shift)
    scheduler.set_timesteps(sigmas=levels.tolist(), device=device)
    return scheduler


def start_fraction(read: MemoryRead, patch: tuple[int, int], known_fraction: float) -> Tensor:
    """Share of noise in every token's start, from how far the read is from an exact one.

    Args:
        read: What the memory holds, T frames of B worlds, h x w cells.
        patch: Rows and columns of cells in a token.
        known_fraction: Largest share for tokens whose cells are all known; 1 switches the rule off.

    Returns:
        float32 [B, T, h', w']: 1 for tokens with an unknown cell, 0 where every cell reads its token from
        the camera that wrote it, up to `known_fraction` for those that moved, changed scale or turned.

    Source: ours.
    """
    rows, columns = patch
    if known_fraction == 1.0:
        return torch.ones_like(read.depth[..., ::rows, ::columns])
    moved = read.offset.abs().amax(dim=2)  # [B, T, h, w], cells
    change = torch.maximum(torch.maximum(moved, read.log_scale.abs()), 4.0 * (1.0 - read.view_cos))
    share = known_fraction * ((change - EXACT) / (MOVED - EXACT)).clamp(0.0, 1.0)
    share = torch.where(read.mask, share, 1.0)
    grid = (share.shape[-2] // rows, rows, share.shape[-1] // columns, columns)
    return share.reshape(*share.shape[:-2], *grid).amax(dim=-1).amax(dim=-2)


def spread_over_cells(tokens: Tensor, patch: tuple[int, int]) -> Tensor:
    """Repeat a value per token [B, T, h', w'] over its cells, [B, T, 1, h, w]."""
    return tokens.repeat_interleave(patch[0], -2).repeat_interleave(patch[1], -1)[:, :, None]


def settle_noise(noise: Tensor, fraction: Tensor, patch: tuple[int, int]) -> Tensor:
    """Give known tokens the same noise at every step, in every world.

    Args:
        noise: Fresh standard normal noise, [B, T, C, h, w].
        fraction: Share of noise of every token, [B, T, h', w'], 1 for unknown ones, which keep theirs.
        patch: Rows and columns of cells in a token.

    Returns:
        [B, T, C, h, w].

    Source: ours.
    """
    still = torch.randn(noise.shape[2:], generator=torch.Generator().manual_seed(STILL_SEED)).to(noise)
    return torch.where(spread_over_cells(fraction, patch) < 1.0, still, noise)


def flow_start(read: Tensor, noise: Tensor, fraction: Tensor, patch: tuple[int, int]) -> Tensor:
    """Where the flow starts: (1 - f)·read + f·noise.

    Args:
        read: What the memory holds, [B, T, C, h, w]; only counts where f is below 1.
        noise: Standard normal noise, [B, T, C, h, w].
        fraction: Share f of every token, [B, T, h', w'].
        patch: Rows and columns of cells in a token.

    Returns:
        [B, T, C, h, w].
    """
    share = spread_over_cells(fraction, patch)  # [B, T, 1, h, w]
    return (1.0 - share) * read + share * noise


def sample(
    velocity: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,  # [B, T, C, h, w]
    fraction: Tensor,  # [B, T, h', w']
    config: SamplerConfig,
) -> Tensor:
    """Draw latents; tokens with no noise in their start stay as they are.

    Args:
        velocity: Maps (latents on the way, share of noise per token) to the velocity `start - latents`.
        start: Where the flow starts, see `flow_start`.
        fraction: Share of noise in the start of every token.
        config: Steps, shift and kind.

    Returns:
        Latents [B, T, C, h, w].
    """
    scheduler = make_scheduler(config, start.device)
    patch = (start.shape[-2] // fraction.shape[-2], start.shape[-1] // fraction.shape[-1])
    moves = spread_over_cells((fraction > 0).float(), patch)  # [B, T, 1, h, w]
    latents = start
    for index, timestep in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[index])
        flow = velocity(latents, fraction * level) * moves
        latents = scheduler.step(flow, timestep, latents, return_dict=False)[0]
    return latents
