"""The plain read of the benchmark sees what the memory's own z-buffer sees."""

from __future__ import annotations

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.evaluation.bench_config import ReadBenchConfig
from mirage_sim.evaluation.read_bench import bench_read, sort_and_scatter
from mirage_sim.geometry import from_yaw_pitch, make_intrinsics, project

POSE = from_yaw_pitch(torch.tensor([0.0, 0.0, 1.0]), 0.0, 0.0).float()
LENS = make_intrinsics(4, 4, 90.0)


def test_plain_read_takes_the_nearest_point_of_each_cell() -> None:
    points = torch.rand(300, 3, generator=torch.Generator().manual_seed(0)) * 4 - 2
    features = torch.arange(300.0)[:, None]
    latents, mask, depth = sort_and_scatter(features, points, POSE, LENS, (4, 4))
    places, away = project(points, POSE, LENS)
    for row in range(4):
        for column in range(4):
            here = (places[:, 0].floor() == column) & (places[:, 1].floor() == row) & (away > 0)
            assert bool(mask[row, column]) == bool(here.any())
            if here.any():
                nearest = int(torch.where(here, away, torch.inf).argmin())
                assert int(latents[0, row, column]) == nearest
                assert float(depth[row, column]) == float(away[nearest])


def test_bench_tells_a_ratio_for_each_size() -> None:
    rows = bench_read(ReadBenchConfig(sizes=(50, 500), repeats=2))["sizes"]
    assert [row["entries"] for row in rows] == [50, 500]
    for row in rows:
        assert row["ratio"] == pytest.approx(row["plain_ms"] / row["mirage_ms"])


def test_bad_sizes_are_refused() -> None:
    with pytest.raises(InputError, match="sizes"):
        ReadBenchConfig(sizes=(0,))
