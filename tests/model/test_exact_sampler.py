"""Euler and UniPC go the published way, step by step, and leave cells alone that have no noise."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from mirage_sim.model.config import SamplerConfig
from mirage_sim.model.sampler import make_scheduler, sample
from tests.oracles import flow as oracle
from tests.oracles.compare import EXACT, deviation

PATCH = (2, 2)
PUBLISHED = (20, 5.0)  # steps and shift
CASES = [
    ("euler", 1, 1.0),
    ("euler", 4, 3.0),
    ("euler", *PUBLISHED),
    ("unipc", 1, 5.0),
    ("unipc", 2, 5.0),
    ("unipc", 7, 1.0),
    ("unipc", *PUBLISHED),
]


def velocity(latents: Tensor, level: Tensor) -> Tensor:
    """A bent field that depends on neighbours and on the level of the token that a cell is in."""
    cells = level.repeat_interleave(2, dim=-1).repeat_interleave(2, dim=-2)[:, :, None]
    return torch.tanh(latents.roll(1, dims=-1) - 0.5 * latents) * (1.0 + cells) + torch.sin(3.0 * latents)


def start_and_fraction(known: bool) -> tuple[Tensor, Tensor]:
    """Random latents, and shares of noise: all 1, or 0 for a whole token and single cells, else anything."""
    rng = torch.Generator().manual_seed(1)
    start = torch.randn(2, 3, 5, 4, 6, generator=rng)
    fraction = torch.ones(2, 3, 4, 6)
    if known:
        fraction = torch.rand(2, 3, 4, 6, generator=rng)
        fraction[torch.rand(fraction.shape, generator=rng) < 0.3] = 0.0
        fraction[torch.rand(fraction.shape, generator=rng) < 0.3] = 1.0
        fraction[:, :, :2, :2] = 0.0
    return start, fraction


def drawn(scheduler: str, steps: int, shift: float, start: Tensor, fraction: Tensor) -> oracle.Path:
    path = oracle.Path()

    def asked(latents: Tensor, level: Tensor) -> Tensor:
        path.latents.append(latents)
        path.levels.append(level)
        return velocity(latents, level)

    config = SamplerConfig(steps=steps, shift=shift, scheduler=scheduler)
    path.end = sample(asked, start, fraction, PATCH, config)
    return path


def expected(scheduler: str, steps: int, shift: float, start: Tensor, fraction: Tensor) -> oracle.Path:
    solver = {
        "euler": oracle.euler,
        "unipc": oracle.unipc,
        "unipc of order 1": partial(oracle.unipc, highest_order=1),
        "unipc without corrector": partial(oracle.unipc, correct=False),
    }[scheduler]
    return solver(oracle.Flow(velocity, fraction.double(), PATCH), start.double(), steps, shift)


@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize(("scheduler", "steps", "shift"), CASES)
def test_every_step(scheduler, steps, shift, known):
    start, fraction = start_and_fraction(known)
    made = drawn(scheduler, steps, shift, start, fraction)
    wanted = expected(scheduler, steps, shift, start, fraction)
    assert len(made.latents) == len(wanted.latents) == steps
    assert max(map(deviation, made.levels, wanted.levels)) < EXACT
    assert max(map(deviation, made.latents, wanted.latents)) < EXACT
    assert deviation(made.end, wanted.end) < EXACT


def test_no_step_is_left_out_where_timesteps_round_to_the_same():
    start, fraction = start_and_fraction(known=True)
    many = ("unipc", 201, 5.0)
    assert deviation(drawn(*many, start, fraction).end, expected(*many, start, fraction).end) < EXACT


@pytest.mark.parametrize(("scheduler", "steps", "shift"), CASES)
def test_known_cells_stay(scheduler, steps, shift):
    start, fraction = start_and_fraction(known=True)
    made = drawn(scheduler, steps, shift, start, fraction).end
    stays = (fraction == 0)[:, :, None].expand_as(start)
    assert deviation(made[stays], start[stays]) < EXACT
    assert (made - start)[~stays].abs().median() > 0.1


@pytest.mark.parametrize("other", ["euler", "unipc of order 1", "unipc without corrector"])
def test_other_solvers_end_elsewhere(other):
    start, fraction = start_and_fraction(known=True)
    made = drawn("unipc", *PUBLISHED, start, fraction).end
    assert deviation(made, expected(other, *PUBLISHED, start, fraction).end) > 10 * EXACT


@pytest.mark.parametrize("scheduler", ["euler", "unipc"])
def test_levels(scheduler):
    steps, shift = PUBLISHED
    config = SamplerConfig(steps=steps, shift=shift, scheduler=scheduler)
    levels = make_scheduler(config, torch.device("cpu")).sigmas
    wanted = {"euler": oracle.euler_levels, "unipc": oracle.unipc_levels}[scheduler](steps, shift)
    assert deviation(levels, torch.tensor(wanted)) < EXACT
