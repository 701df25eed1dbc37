"""Read benchmark: the memory's read against a plain sort-and-scatter one, on the same clouds in one run."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.evaluation.bench_config import ReadBenchConfig
from mirage_sim.evaluation.report import format_table, show
from mirage_sim.geometry import make_intrinsics, make_pose, project
from mirage_sim.memory import gather_tokens, splat


def bench_read(config: ReadBenchConfig) -> dict[str, Any]:
    """Time our read and a plain one on the same clouds, one after the other, in one run.

    Args:
        config: How reads are timed.

    Returns:
        `sizes`, a list with `entries`, `mirage_ms`, `plain_ms` and `ratio` (plain over ours).
    """
    rows = []
    hw = (config.height, config.width)
    lens = make_intrinsics(*hw, 75.0)
    pose = make_pose(
        torch.tensor([[0.0, 0.0, 1.0], [-1.0, 0.0, 0.0], [0.0, -1.0, 0.0]]), torch.tensor([0.0, 0, 1.4])
    )
    for size in config.sizes:
        features, positions, footprint, view_dir = _cloud(size, config)
        valid = torch.ones(1, size, dtype=torch.bool)

        def ours(
            features: Tensor = features,
            positions: Tensor = positions,
            footprint: Tensor = footprint,
            view_dir: Tensor = view_dir,
            valid: Tensor = valid,
        ) -> Any:
            seen = splat(
                positions[None],
                valid,
                footprint[None],
                view_dir[None],
                pose[None, None],
                lens[None, None],
                hw,
            )
            return gather_tokens(features[None], seen.index)

        def plain(features: Tensor = features, positions: Tensor = positions) -> Any:
            return sort_and_scatter(features, positions, pose, lens, hw)

        mirage_ms, plain_ms = _medians([ours, plain], config.repeats)
        rows.append(
            {
                "entries": size,
                "mirage_ms": mirage_ms,
                "plain_ms": plain_ms,
                "ratio": plain_ms / mirage_ms,
            }
        )
    return {"sizes": rows, "aims": []}


def sort_and_scatter(
    features: Tensor,  # [N, C]
    positions: Tensor,  # [N, 3]
    cam2world: Tensor,  # [4, 4]
    intrinsics: Tensor,  # [3, 3]
    hw: tuple[int, int],
) -> tuple[Tensor, Tensor, Tensor]:
    """Read the straightforward way: sort all points from far to near and let the nearer ones overwrite.

    Args:
        features: Tokens.
        positions: World points, metres.
        cam2world: Target camera.
        intrinsics: In cells.
        hw: Rows and columns of cells.

    Returns:
        Latents [C, h, w], bool [h, w] where there is one, and depth [h, w] in metres.
    """
    places, depth = project(positions, cam2world, intrinsics)  # [N, 2], [N]
    column, row = places.floor().long().unbind(-1)
    inside = (depth > 0) & (column >= 0) & (column < hw[1]) & (row >= 0) & (row < hw[0])
    order = torch.where(inside, depth, -1.0).argsort(descending=True, stable=True)[: int(inside.sum())]
    cell = row[order] * hw[1] + column[order]
    latents = features.new_zeros(hw[0] * hw[1], features.shape[1])
    near = depth.new_zeros(hw[0] * hw[1])
    latents[cell], near[cell] = features[order], depth[order]
    return latents.T.float().reshape(-1, *hw), (near > 0).reshape(hw), near.reshape(hw)


def read_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `bench_read`."""
    rows = [
        (f"{row['entries']:,} entries", [show(row[name], 3) for name in ("mirage_ms", "plain_ms", "ratio")])
        for row in result["sizes"]
    ]
    return format_table(rows, ["ours, ms", "sort and scatter, ms", "ratio"])


def _cloud(size: int, config: ReadBenchConfig) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Tokens of a room: features [N, C], positions [N, 3], footprint [N] and view_dir [N, 3]."""
    generator = torch.Generator().manual_seed(config.seed)
    span, low = torch.tensor([8.0, 8.0, 2.6]), torch.tensor([-4.0, -4.0, 0.0])
    positions = low + span * torch.rand(size, 3, generator=generator)
    direction = torch.nn.functional.normalize(torch.randn(size, 3, generator=generator), dim=-1)
    footprint = 0.1 + 0.2 * torch.rand(size, generator=generator)
    return torch.randn(size, config.channels, generator=generator).half(), positions, footprint, direction


def _medians(calls: list[Callable[[], Any]], repeats: int) -> list[float]:
    """Median milliseconds of each call, in turn with the others so that all meet the same machine."""
    for call in calls:
        call()
    laps: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, lap in zip(calls, laps, strict=True):
            began = time.perf_counter()
            call()
            lap.append(1000.0 * (time.perf_counter() - began))
    return [float(np.median(lap)) for lap in laps]
