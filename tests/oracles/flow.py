"""Solvers of a flow x_σ = (1 - σ)·x + σ·start from σ = 1 to 0, in float64.

Written from: flow matching (arXiv 2210.02747) with the shift of noise levels of SD3 (arXiv 2403.03206) for
Euler's method; UniPC (arXiv 2302.04867, data prediction, B₂(h) = e^h - 1) for the multistep predictor and
corrector, with two things that the paper leaves to the implementation: the levels run from 1 towards 1/1000,
where the last step goes to 0, and the order is 1 in the first and in the last step, 2 between.

A level is a float32 number, since that is how the network is told.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

Velocity = Callable[[Tensor, Tensor], Tensor]
HIGHEST = 1.0 - 1e-6  # of UniPC, whose logarithm of signal to noise has no value at 1


def rounded(level: float) -> float:
    return float(torch.tensor(level, dtype=torch.float32))


def shifted(level: float, shift: float) -> float:
    return shift * level / (1.0 + (shift - 1.0) * level)


def euler_levels(steps: int, shift: float) -> list[float]:
    return [rounded(shifted(1.0 - index / steps, shift)) for index in range(steps + 1)]


def unipc_levels(steps: int, shift: float) -> list[float]:
    even = [1.0 - 0.999 * index / steps for index in range(steps)]
    return [rounded(min(shifted(level, shift), HIGHEST)) for level in even] + [0.0]


@dataclass
class Path:
    """What the network was asked on the way, and where the way ended.

    Attributes:
        latents: What the network saw, one per step.
        levels: Noise level of every token, [B, T, h', w'], one per step.
        end: Drawn latents.
    """

    latents: list[Tensor] = field(default_factory=list)
    levels: list[Tensor] = field(default_factory=list)
    end: Tensor = field(default_factory=lambda: torch.empty(0))


class Flow:
    """Velocity of latents in which every cell has its own share of noise at the start."""

    def __init__(self, velocity: Velocity, fraction: Tensor, patch: tuple[int, int]) -> None:
        self.velocity, self.fraction, self.path = velocity, fraction, Path()
        rows, columns = patch
        height, width = fraction.shape[-2] // rows, fraction.shape[-1] // columns
        self.tokens = fraction.new_empty(*fraction.shape[:2], height, width)
        for row in range(height):
            for column in range(width):
                cells = fraction[..., row * rows :, column * columns :][..., :rows, :columns]
                self.tokens[..., row, column] = cells.flatten(-2).amax(dim=-1)

    def __call__(self, latents: Tensor, level: float) -> Tensor:
        told = self.tokens * level
        self.path.latents.append(latents)
        self.path.levels.append(told)
        flow = self.velocity(latents, told)
        return torch.where(self.fraction[:, :, None] > 0, flow, 0.0)


def euler(flow: Flow, start: Tensor, steps: int, shift: float) -> Path:
    levels = euler_levels(steps, shift)
    latents = start
    for level, following in itertools.pairwise(levels):
        latents = latents + (following - level) * flow(latents, level)
    flow.path.end = latents
    return flow.path


def half_log_ratio(level: float) -> float:
    """λ: logarithm of signal (1 - σ) over noise σ."""
    return math.log(1.0 - level) - math.log(level)


def phi(order: int, z: float) -> float:
    """φ₀(z) = e^z, φ_k+1(z) = (φ_k(z) - 1/k!) / z."""
    if order == 0:
        return math.exp(z)
    return (phi(order - 1, z) - 1.0 / math.factorial(order - 1)) / z


def coefficients(ratios: list[float], z: float) -> list[float]:
    """Solve Σ_m a_m r_m^(k-1) = k!·z·φ_k+1(z) / (e^z - 1), k = 1 … p; 1/2 where only one r remains."""
    if len(ratios) == 1:
        return [0.5]
    powers = torch.tensor([[ratio**k for ratio in ratios] for k in range(len(ratios))], dtype=torch.float64)
    wanted = [math.factorial(k) * z * phi(k + 1, z) / math.expm1(z) for k in range(1, len(ratios) + 1)]
    return torch.linalg.solve(powers, torch.tensor(wanted, dtype=torch.float64)).tolist()


def unipc(
    flow: Flow, start: Tensor, steps: int, shift: float, highest_order: int = 2, correct: bool = True
) -> Path:
    """Predict, ask the network once, correct with its answer, predict from there."""
    levels = unipc_levels(steps, shift)
    estimates: list[Tensor] = []  # of the data, one per level passed

    def move(latents: Tensor, index: int, order: int, corrector: bool) -> Tensor:
        """From level `index` to the next with estimates of earlier levels, and of the next to correct."""
        here, there = levels[index], levels[index + 1]
        kept = there / here * latents
        if there == 0.0:
            return kept + estimates[index]
        step = half_log_ratio(there) - half_log_ratio(here)
        others = [index - back for back in range(1, order)] + ([index + 1] if corrector else [])
        ratios = [(half_log_ratio(levels[other]) - half_log_ratio(here)) / step for other in others]
        growth = math.expm1(-step)
        moved = kept - (1.0 - there) * growth * estimates[index]
        if others:
            weights = coefficients(ratios, -step)
            for other, ratio, weight in zip(others, ratios, weights, strict=True):
                change = (estimates[other] - estimates[index]) / ratio
                moved = moved - (1.0 - there) * growth * weight * change
        return moved

    latents, predicted, order = start, start, 1
    for index in range(steps):
        estimates.append(predicted - levels[index] * flow(predicted, levels[index]))
        if index and correct:
            latents = move(latents, index - 1, order, corrector=True)
        else:
            latents = predicted
        order = min(highest_order, index + 1, steps - index)
        predicted = move(latents, index, order, corrector=False)
    flow.path.end = predicted
    return flow.path
