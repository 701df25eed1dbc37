"""Metrics against hand-made cases and against plain formulas."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given
from hypothesis import strategies as st

from mirage_sim.errors import InputError
from mirage_sim.evaluation.metrics import (
    frechet_distance,
    gradient_energy,
    gradient_sums,
    mean_and_interval,
    psnr,
    ssim,
)


def test_psnr_knows_a_uniform_error() -> None:
    truth = torch.zeros(2, 3, 4, 4)
    images = truth + torch.tensor([0.2, 0.02])[:, None, None, None]
    expected = [10 * math.log10(4 / 0.04), 10 * math.log10(4 / 0.0004)]
    torch.testing.assert_close(psnr(images, truth), torch.tensor(expected))


def test_psnr_of_equal_pictures_is_capped() -> None:
    picture = torch.rand(3, 8, 8)
    assert psnr(picture, picture) == pytest.approx(60.0)


def test_psnr_looks_only_where_the_mask_is() -> None:
    truth = torch.zeros(3, 4, 4)
    images = truth.clone()
    images[:, :, 2:] = 1.0  # wrong on the right half
    left = torch.zeros(4, 4, dtype=torch.bool)
    left[:, :2] = True
    assert psnr(images, truth, left) == pytest.approx(60.0)
    assert psnr(images, truth, ~left) == pytest.approx(10 * math.log10(4))
    assert psnr(images, truth) == pytest.approx(10 * math.log10(8))
    assert math.isnan(psnr(images, truth, torch.zeros_like(left)))


@given(seed=st.integers(0, 1000), batch=st.sampled_from([(), (2,), (2, 3)]))
def test_psnr_masked_everywhere_is_plain_psnr(seed: int, batch: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(seed)
    a, b = torch.rand(2, *batch, 3, 5, 6, generator=generator)
    everywhere = torch.ones(*batch, 5, 6, dtype=torch.bool)
    torch.testing.assert_close(psnr(a, b, everywhere), psnr(a, b))
    assert psnr(a, b).shape == batch


def plain_ssim(x: np.ndarray, y: np.ndarray) -> float:
    """Windows one by one."""
    places = np.arange(11) - 5.0
    weights = np.exp(-(places**2) / (2 * 1.5**2))
    weights = np.outer(weights, weights) / weights.sum() ** 2
    values = []
    for channel in range(3):
        for row in range(x.shape[1] - 10):
            for column in range(x.shape[2] - 10):
                a, b = (each[channel, row : row + 11, column : column + 11] for each in (x, y))
                mean_a, mean_b = (weights * a).sum(), (weights * b).sum()
                var_a, var_b = (weights * (a - mean_a) ** 2).sum(), (weights * (b - mean_b) ** 2).sum()
                both = (weights * (a - mean_a) * (b - mean_b)).sum()
                top = (2 * mean_a * mean_b + 0.0004) * (2 * both + 0.0036)
                values.append(top / ((mean_a**2 + mean_b**2 + 0.0004) * (var_a + var_b + 0.0036)))
    return float(np.mean(values))


def test_ssim_matches_windows_one_by_one() -> None:
    generator = torch.Generator().manual_seed(3)
    a, b = 2 * torch.rand(2, 3, 14, 13, generator=generator, dtype=torch.float64) - 1
    assert float(ssim(a, b)) == pytest.approx(plain_ssim(a.numpy(), b.numpy()), abs=1e-6)


def test_ssim_of_equal_pictures_is_one_and_small_pictures_are_refused() -> None:
    pictures = torch.rand(2, 4, 3, 16, 16)
    torch.testing.assert_close(ssim(pictures, pictures), torch.ones(2, 4))
    with pytest.raises(InputError, match="11x11"):
        ssim(pictures[..., :10], pictures[..., :10])


def test_gradient_energy_of_stripes() -> None:
    stripes = torch.tensor([0.0, 1.0, 0.0, 1.0]).expand(3, 4, 4)  # 12 pairs differ by 1, 12 by 0
    assert gradient_energy(stripes) == pytest.approx(0.5)
    total, count = gradient_sums(stripes)
    assert (float(total), float(count)) == (12.0, 24.0)


def test_gradient_energy_never_crosses_the_border_of_a_mask() -> None:
    step = torch.zeros(3, 6, 6)
    step[:, :, 3:] = 5.0
    left = torch.zeros(6, 6, dtype=torch.bool)
    left[:, :3] = True
    assert gradient_energy(step, left) == 0.0
    assert gradient_energy(step) > 0.0
    assert gradient_energy(step, torch.zeros_like(left)) == 0.0


def test_blur_lowers_gradient_energy() -> None:
    noise = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    blurred = torch.nn.functional.avg_pool2d(noise, 3, 1, 1)
    assert gradient_energy(blurred) < 0.5 * gradient_energy(noise)


def test_frechet_distance_of_shifted_and_scaled_sets() -> None:
    a = torch.randn(500, 4, generator=torch.Generator().manual_seed(0))
    assert frechet_distance(a, a) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(a, a + 2.0) == pytest.approx(16.0, rel=1e-6)
    spread = float(torch.from_numpy(np.cov(a.numpy(), rowvar=False)).trace())
    about_mean = a - a.mean(0)
    assert frechet_distance(about_mean, 3 * about_mean) == pytest.approx(4 * spread, rel=1e-5)


def test_frechet_distance_matches_the_matrix_root_and_bears_singular_covariances() -> None:
    generator = torch.Generator().manual_seed(1)
    a = torch.randn(300, 5, generator=generator) @ torch.randn(5, 5, generator=generator)
    b = torch.randn(200, 5, generator=generator) @ torch.randn(5, 5, generator=generator) + 0.3
    x, y = a.double().numpy(), b.double().numpy()
    first, second = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = np.real(scipy.linalg.sqrtm(first @ second))
    expected = np.square(x.mean(0) - y.mean(0)).sum() + np.trace(first + second - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-6)
    flat = torch.randn(3, 5, generator=generator)
    assert math.isfinite(frechet_distance(flat, a))
    with pytest.raises(InputError, match="of one D"):
        frechet_distance(a, b[:, :4])


def test_mean_and_interval() -> None:
    mean, half = mean_and_interval(torch.tensor([1.0, 2.0, 3.0, math.nan]))
    assert mean == pytest.approx(2.0)
    assert half == pytest.approx(4.3027 / math.sqrt(3), rel=1e-4)  # Student's t with two degrees of freedom
    assert math.isnan(mean_and_interval(torch.tensor([math.nan]))[0])
    assert math.isnan(mean_and_interval(torch.tensor([1.0]))[1])
