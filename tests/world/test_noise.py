"""Noise belongs to a world's seed and to the view."""

import torch

from mirage_sim.geometry import from_yaw_pitch, yaw_sweep
from mirage_sim.world.noise import view_noise

SHAPE = (2, 8, 16, 16)


def views() -> torch.Tensor:
    return yaw_sweep(from_yaw_pitch(torch.tensor([1.0, -2.0, 1.4]), torch.tensor(0.3)), 90.0, 6)


def test_the_same_view_has_the_same_noise_and_no_other_has():
    noise = view_noise(5, views(), SHAPE)
    assert torch.equal(view_noise(5, views()[2:3], SHAPE)[0], noise[2])
    together = noise.flatten(1)
    cosine = torch.nn.functional.cosine_similarity(together[:, None], together[None], dim=-1)
    assert cosine.fill_diagonal_(0).abs().max() < 0.1


def test_another_seed_has_other_noise():
    one, other = (view_noise(seed, views()[:1], SHAPE).flatten() for seed in (5, -6))
    assert abs(float(torch.nn.functional.cosine_similarity(one, other, dim=0))) < 0.1


def test_it_is_standard_normal():
    noise = view_noise(2**63 - 1, views(), SHAPE)
    assert noise.shape == (7, *SHAPE)
    assert abs(float(noise.mean())) < 0.02
    assert abs(float(noise.std()) - 1.0) < 0.02


def test_rounding_errors_do_not_make_another_view():
    here = views()[:1]
    assert torch.equal(view_noise(5, here, SHAPE), view_noise(5, here + 1e-6, SHAPE))
