"""Sampler: from noise to latents along the flow, on diffusers' schedulers, with a start level per token.

A token of fraction f passes through the noise levels f·σ: unknown cells start from pure noise (f = 1), cells
that the memory knows start close to what was read (f < 1), and f = 0 keeps a token as it is. Since a token's
level is f times the schedule's, its step is the schedule's step on f times its velocity.

Source: paper, section on sampling; per-token start levels are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler
from torch import Tensor

from mirage_sim.errors import InputError


@dataclass(frozen=True)
class SamplerConfig:
    """How latents are drawn.

    Attributes:
        steps: Passes through the network.
        shift: Shift s of the noise levels, σ' = sσ / (1 + (s - 1)σ).
        scheduler: "euler" for few steps, "unipc" for the full-size model.
        known_fraction: Start level of tokens that the memory knows, as a share of the schedule's.
    """

    steps: int = 2
    shift: float = 1.0
    scheduler: str = "euler"
    known_fraction: float = 0.4

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


def patch_fraction(known: Tensor, patch: tuple[int, int], known_fraction: float) -> Tensor:
    """Start level of every token: `known_fraction` where all of its cells are known, else 1.

    Args:
        known: bool [B, T, h, w].
        patch: Rows and columns of cells in a token.
        known_fraction: Level of known tokens.

    Returns:
        float32 [B, T, h', w'].
    """
    rows, columns = patch
    blocks = known.unflatten(-1, (-1, columns)).unflatten(-3, (-1, rows))  # [B, T, h', 2, w', 2]
    whole = blocks.all(dim=-1).all(dim=-2)  # [B, T, h', w']
    return torch.where(whole, known_fraction, 1.0)


def spread_over_cells(tokens: Tensor, patch: tuple[int, int]) -> Tensor:
    """Repeat a value per token [B, T, h', w'] over its cells, [B, T, 1, h, w]."""
    return tokens.repeat_interleave(patch[0], -2).repeat_interleave(patch[1], -1)[:, :, None]


def sample(
    velocity: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,  # [B, T, C, h, w]
    noise: Tensor,  # [B, T, C, h, w]
    fraction: Tensor,  # [B, T, h', w']
    patch: tuple[int, int],
    config: SamplerConfig,
) -> Tensor:
    """Draw latents.

    Args:
        velocity: Maps (noisy latents, level per token) to the velocity `noise - latents`.
        start: What is known before; only counts where the fraction is below 1.
        noise: Standard normal noise.
        fraction: Share of the schedule's level at which each token moves.
        patch: Rows and columns of cells in a token.
        config: Steps, shift and kind.

    Returns:
        Latents [B, T, C, h, w].
    """
    scheduler = make_scheduler(config, start.device)
    share = spread_over_cells(fraction, patch)  # [B, T, 1, h, w]
    level = float(scheduler.sigmas[0])
    latents = (1.0 - share * level) * start + share * level * noise
    for index, timestep in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[index])
        flow = velocity(latents, fraction * level)
        latents = scheduler.step(share * flow, timestep, latents, return_dict=False)[0]
        latents = torch.where(share == 0, start, latents)
    return latents
