"""Align: what an estimator says of depth, brought to the scale of what the memory knows.

Inverse depth is fitted by a scale and a shift, robustly: of lines through two cells each the one with the
least median error, then repeated least squares in which a cell counts the less the farther it is off
(Cauchy's weights), so that what has moved or is misread does not pull the rest. Inverse depth, since there
both metric estimators (off by a factor, mostly) and relative ones (known up to scale and shift) are one
affine map away from the truth. Source: ours.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool2d

from mirage_sim.geometry import downsample_depth
from mirage_sim.perception.protocol import Perceived, Seen

MIN_CELLS = 16
"""Known cells from which a scale is told."""
_MIN_SPREAD = 0.05  # of the known inverse depths, over their mean, from which a shift is told
_ROUNDS = 30
_LINES = 128  # tried before
_WIDTH = 2.4  # of the weights, in median deviations


def align_depth(
    inverse: Tensor,  # [N, h, w]
    known_depth: Tensor,  # [N, h, w]
    known: Tensor,  # [N, h, w]
) -> tuple[Tensor, Tensor]:
    """Bring inverse depths to the scale of known ones; each view on its own.

    Args:
        inverse: What an estimator says, at least 0, in any unit.
        known_depth: z-depth that the memory holds, in metres.
        known: bool, where it holds one.

    Returns:
        Inverse depths in 1 / metres, at least 0, float32 [N, h, w]; and bool [N], which views knew enough:
        the others are left as they are.
    """
    aligned, told = inverse.float().clone(), []
    for view, depth, mask in zip(aligned, known_depth, known, strict=True):
        usable = mask & (depth > 0) & (view >= 0) & view.isfinite()
        told.append(int((usable & (view > 0)).sum()) >= MIN_CELLS)
        if told[-1]:
            scale, shift = _fit(view[usable].double(), 1.0 / depth[usable].double())
            view.mul_(scale).add_(shift).clamp_(min=0.0)
    return aligned, torch.tensor(told, device=inverse.device, dtype=torch.bool)


def perceive(
    inverse: Tensor,  # [N, H, W]
    seen: Seen,
    far: float,
    edge_ratio: float,
) -> tuple[Perceived, Tensor]:
    """Make depth of cells of what an estimator says of pixels.

    Args:
        inverse: Inverse depth, at least 0, in any unit.
        seen: What the memory knows.
        far: Metres beyond which nothing counts as a surface.
        edge_ratio: Farthest over nearest depth in a cell from which it is not sure.

    Returns:
        What is there, and bool [N], which views knew enough to be brought to the memory's scale.
    """
    stride = inverse.shape[-1] // seen.known.shape[-1]
    cells = downsample_depth(inverse, stride)  # the lower median: a value that is there
    aligned, told = align_depth(cells, seen.known_depth, seen.known)
    depth = 1.0 / aligned.clamp(min=1e-6)
    surface = aligned > 1.0 / far
    farthest = -max_pool2d(-inverse[:, None], stride)[:, 0]
    nearest = max_pool2d(inverse[:, None], stride)[:, 0]
    sure = nearest <= edge_ratio * farthest
    return Perceived(torch.where(surface, depth, far), surface, sure), told


def _fit(said: Tensor, true: Tensor) -> tuple[float, float]:
    """Scale and shift with true = scale * said + shift, [M] each."""
    there = said > 0
    scale, shift = (true[there] / said[there]).median(), true.new_zeros(())
    apart = [float((part.quantile(0.9) - part.quantile(0.1)) / part.mean()) for part in (said, true)]
    if min(apart) < _MIN_SPREAD:
        return float(scale), 0.0  # a flat view does not tell them apart
    scale, shift = _best_line(said, true, scale)
    for _ in range(_ROUNDS):
        error = (scale * said + shift - true).abs()
        weight = 1.0 / (1.0 + (error / (_WIDTH * error.median() + 1e-9)).square())
        total = weight.sum()
        middle, target = (weight * said).sum() / total, (weight * true).sum() / total
        around = said - middle
        slope = (weight * around * (true - target)).sum() / (weight * around.square()).sum()
        if not slope > 0:
            break  # nearer would be farther: the last sound fit stays
        scale, shift = slope, target - slope * middle
    return float(scale), float(shift)


def _best_line(said: Tensor, true: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Of rising lines through two cells each, and of `scale` alone, the one with the least median error."""
    order = torch.randperm(
        len(said), generator=torch.Generator().manual_seed(0), dtype=torch.int64, device="cpu"
    ).to(said.device)
    first, second = order.roll(1), order
    run, rise = said[second] - said[first], true[second] - true[first]
    steep = (run.abs() > 1e-9) & (rise * run > 0)
    slopes = torch.cat([scale[None], (rise / run)[steep][:_LINES]])  # [K]
    shifts = torch.cat([scale.new_zeros(1), (true[first] - rise / run * said[first])[steep][:_LINES]])
    errors = (slopes[:, None] * said + shifts[:, None] - true).abs().median(dim=1).values
    best = errors.argmin()
    return slopes[best], shifts[best]
