"""Sampler: along the flow from its start to latents, by Euler's method or diffusers' UniPC.

Where nothing is known the flow starts at pure noise. Where the memory knows a cell, it starts at what was
carried over from there with a share f of noise, (1 - f)·carried + f·noise, so that a remembered place is not
dreamt anew; at f = 0 it stays as it is. Both are straight flows x_σ = (1 - σ)·x + σ·start with velocity
`start - x`, so every flow scheduler fits; the network is told the largest share of noise in a token, f·σ.

Source: paper, section on sampling; flows that start at the memory are ours.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from mirage_sim.libraries import from_library
from mirage_sim.memory import MemoryRead
from mirage_sim.model.config import SamplerConfig
from mirage_sim.model.resampler import is_exact


def shift_sigma(sigma: Tensor, shift: float) -> Tensor:
    """Move noise levels towards 1: sσ / (1 + (s - 1)σ)."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


class EulerScheduler:
    """Euler's method: straight on to the next level.

    Attributes:
        sigmas: Levels from 1 down to 0, float32 [steps + 1].
        timesteps: All levels but the last as networks count them, [steps].
    """

    def __init__(self, config: SamplerConfig, device: torch.device) -> None:
        """Lay out the levels.

        Args:
            config: Steps and shift.
            device: Where the levels live.
        """
        even = torch.linspace(1.0, 1.0 / config.steps, config.steps, dtype=torch.float32, device="cpu")
        shifted = shift_sigma(even, config.shift).to(device)
        self.timesteps = shifted * 1000.0
        self.sigmas = torch.cat([shifted, torch.zeros(1, dtype=torch.float32, device=device)])
        self._index = 0

    def step(
        self, flow: Tensor, timestep: Tensor, latents: Tensor, return_dict: bool = False
    ) -> tuple[Tensor]:
        """Go to the next level.

        Args:
            flow: Velocity at this level, [B, T, C, h, w].
            timestep: Of this level; levels are taken in order.
            latents: At this level.
            return_dict: Only `False`, as diffusers' schedulers have it.

        Returns:
            The latents at the next level.
        """
        del timestep, return_dict
        change = self.sigmas[self._index + 1] - self.sigmas[self._index]
        self._index += 1
        return ((latents.float() + change * flow).to(flow.dtype),)


def make_scheduler(config: SamplerConfig, device: torch.device) -> Any:
    """Build a scheduler whose levels go from 1 down to 0 in `config.steps` steps.

    Args:
        config: Steps, shift and kind.
        device: Where the levels live.

    Returns:
        A scheduler with its timesteps set.
    """
    if config.scheduler == "euler":
        return EulerScheduler(config, device)
    scheduler = copy(_blank_unipc(config.shift))
    scheduler.set_timesteps(config.steps, device=device)
    scheduler.set_begin_index(0)  # not looked up: its first timesteps may round to the same
    return scheduler


@lru_cache
def _blank_unipc(shift: float) -> Any:
    """A scheduler whose timesteps are not set, made once: that takes longer than a step of it."""
    unipc = from_library("diffusers.schedulers.scheduling_unipc_multistep", "UniPCMultistepScheduler")
    return unipc(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)


def start_fraction(read: MemoryRead, known_fraction: float) -> Tensor:
    """Share of noise in every cell's start.

    Args:
        read: What the memory holds, T frames of B worlds, h x w cells.
        known_fraction: Share for cells that are known but not exactly; if it is 1, for exact ones, too.

    Returns:
        float32 [B, T, h, w]: 1 for unknown cells, 0 for exact ones, `known_fraction` for the others.

    Source: ours.
    """
    share = torch.where(read.mask, known_fraction, 1.0)
    return share if known_fraction == 1.0 else torch.where(is_exact(read), 0.0, share)


def pool_tokens(cells: Tensor, patch: tuple[int, int]) -> Tensor:
    """Largest value of every token's cells: [B, T, h, w] to [B, T, h', w']."""
    return torch.nn.functional.max_pool2d(cells, patch)


def flow_start(carried: Tensor, noise: Tensor, fraction: Tensor) -> Tensor:
    """Where the flow starts: (1 - f)·carried + f·noise.

    Args:
        carried: What the memory holds for this view, [B, T, C, h, w]; only counts where f is below 1.
        noise: Standard normal noise, [B, T, C, h, w].
        fraction: Share f of every cell, [B, T, h, w].

    Returns:
        [B, T, C, h, w].
    """
    share = fraction[:, :, None]
    return torch.where(share == 1.0, noise, (1.0 - share) * carried + share * noise)


def sample(
    velocity: Callable[[Tensor, Tensor], Tensor],
    start: Tensor,  # [B, T, C, h, w]
    fraction: Tensor,  # [B, T, h, w]
    patch: tuple[int, int],
    config: SamplerConfig,
) -> Tensor:
    """Draw latents; cells with no noise in their start stay as they are.

    Args:
        velocity: Maps (latents on the way, share of noise per token) to the velocity `start - latents`.
        start: Where the flow starts, see `flow_start`.
        fraction: Share of noise in the start of every cell.
        patch: Rows and columns of cells in a token.
        config: Steps, shift and kind.

    Returns:
        Latents [B, T, C, h, w].
    """
    scheduler = make_scheduler(config, start.device)
    moves = (fraction > 0)[:, :, None]  # [B, T, 1, h, w]
    tokens = pool_tokens(fraction, patch)  # [B, T, h', w']
    latents = start
    for index, timestep in enumerate(scheduler.timesteps):
        level = float(scheduler.sigmas[index])
        flow = velocity(latents, tokens * level) * moves
        latents = torch.where(moves, scheduler.step(flow, timestep, latents, return_dict=False)[0], start)
    return latents
