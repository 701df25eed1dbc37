"""Image and distribution metrics on tensors in [-1, 1]; pure functions."""

from __future__ import annotations

import math

import numpy as np
import scipy.special
import torch
import torch.nn.functional as F
from torch import Tensor

from mirage_sim.errors import InputError


def psnr(
    images: Tensor,  # [..., 3, H, W]
    truth: Tensor,  # [..., 3, H, W]
    mask: Tensor | None = None,  # [..., H, W] bool
) -> Tensor:
    """Peak signal-to-noise ratio for a signal range of 2.

    Args:
        images: Pictures, [..., 3, H, W] in [-1, 1].
        truth: What they should be, same shape.
        mask: Pixels that count, [..., H, W]; all of them if `None`.

    Returns:
        Decibels [...], capped at 60 (equal pictures); NaN where the mask is empty.
    """
    squared = (images - truth).square().mean(dim=-3)  # [..., H, W]
    if mask is None:
        error = squared.mean(dim=(-2, -1))
    else:
        count = mask.sum(dim=(-2, -1))
        error = (squared * mask).sum(dim=(-2, -1)) / count
    return 10.0 * torch.log10(4.0 / error.clamp(min=4e-6))


def ssim(images: Tensor, truth: Tensor) -> Tensor:
    """Structural similarity with an 11-pixel Gaussian window (sigma 1.5), mean over channels and pixels.

    Args:
        images: Pictures, [..., 3, H, W] in [-1, 1], at least 11 pixels a side.
        truth: What they should be, same shape.

    Returns:
        [...] in [-1, 1]; 1 for equal pictures.

    Raises:
        InputError: If the pictures are smaller than the window.
    """
    if min(images.shape[-2:]) < 11:
        raise InputError(f"ssim needs pictures of at least 11x11 pixels, got {list(images.shape[-2:])}")
    window = torch.exp(-(torch.arange(11, dtype=torch.float32) - 5).square() / (2 * 1.5**2)).to(images)
    window = window / window.sum()
    across = window.expand(3, 1, 1, 11)

    def smooth(x: Tensor) -> Tensor:
        return F.conv2d(F.conv2d(x, across, groups=3), across.transpose(-1, -2), groups=3)

    x, y = (each.reshape(-1, *each.shape[-3:]) for each in (images, truth))  # [N, 3, H, W]
    mean_x, mean_y = smooth(x), smooth(y)
    var_x = smooth(x * x) - mean_x.square()
    var_y = smooth(y * y) - mean_y.square()
    covariance = smooth(x * y) - mean_x * mean_y
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    value = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    return value.mean(dim=(-3, -2, -1)).reshape(images.shape[:-3])


def gradient_sums(images: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Sum of squared differences of neighbouring pixels, and how many pairs of neighbours count.

    Args:
        images: Pictures, [..., 3, H, W].
        mask: Pixels that count, [..., H, W]; both neighbours must count.

    Returns:
        Sum (mean over channels) and number of pairs, [...] each.
    """
    total = torch.zeros(images.shape[:-3], device=images.device)
    count = torch.zeros(images.shape[:-3], device=images.device)
    for dim in (-1, -2):
        squared = images.diff(dim=dim).square().mean(dim=-3)
        length = images.shape[dim] - 1
        if mask is None:
            both = torch.ones_like(squared, dtype=torch.bool)
        else:
            both = mask.narrow(dim, 0, length) & mask.narrow(dim, 1, length)
        total = total + (squared * both).sum(dim=(-2, -1))
        count = count + both.sum(dim=(-2, -1))
    return total, count


def gradient_energy(images: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean squared difference of neighbouring pixels: how much edge a picture holds.

    Args:
        images: Pictures, [..., 3, H, W].
        mask: Pixels that count, [..., H, W]; both neighbours must count.

    Returns:
        [...]; 0 where nothing counts.
    """
    total, count = gradient_sums(images, mask)
    return total / count.clamp(min=1)


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Fréchet distance between Gaussians fitted to two sets of features.

    Args:
        a: Features [N, D].
        b: Features [M, D].

    Returns:
        |mean difference|² + trace(Σa + Σb - 2 (Σa Σb)^½), at least 0.

    Raises:
        InputError: If a set has fewer than two features, or their lengths differ.

    Source: Heusel et al. 2017.
    """
    if min(len(a), len(b)) < 2 or a.shape[1:] != b.shape[1:]:
        raise InputError(f"a and b must be [N > 1, D] of one D, got {list(a.shape)} and {list(b.shape)}")
    x, y = (np.asarray(t.double().cpu()) for t in (a, b))
    mean = float(np.square(x.mean(0) - y.mean(0)).sum())
    cov_x, cov_y = (np.atleast_2d(np.cov(each, rowvar=False)) for each in (x, y))
    # trace((Σa Σb)^½) = trace((Σa^½ Σb Σa^½)^½), which is symmetric: real also where a covariance is singular
    values, vectors = np.linalg.eigh(cov_x)
    half = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    roots = np.sqrt(np.clip(np.linalg.eigvalsh(half @ cov_y @ half), 0.0, None))
    return max(0.0, mean + float(np.trace(cov_x) + np.trace(cov_y) - 2.0 * roots.sum()))


def mean_and_interval(values: Tensor) -> tuple[float, float]:
    """Mean and half-width of its 95 % confidence interval (Student's t), NaN entries left out.

    Args:
        values: [N].

    Returns:
        (mean, half-width); the half-width is NaN for fewer than two values.
    """
    known = values[torch.isfinite(values)].double()
    if len(known) == 0:
        return math.nan, math.nan
    if len(known) == 1:
        return float(known.mean()), math.nan
    quantile = float(scipy.special.stdtrit(len(known) - 1, 0.975))
    return float(known.mean()), quantile * float(known.std()) / math.sqrt(len(known))
