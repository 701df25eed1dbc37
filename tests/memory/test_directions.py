"""Directions keep what they point at when they are packed."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from mirage_sim.memory.directions import pack_directions, unpack_directions


@given(seed=st.integers(0, 2**31), tilt=st.floats(-1, 1))
def test_unpacking_points_where_it_did_before(seed: int, tilt: float) -> None:
    ways = torch.randn(50, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    ways[:10, 2] *= tilt * 1e-3  # along the fold
    ways = torch.nn.functional.normalize(ways, dim=-1)
    again = unpack_directions(pack_directions(ways.float()))
    assert again.dtype == torch.float32
    angle = torch.linalg.cross(again.double(), ways).norm(dim=-1)
    assert float(angle.max()) < 1.8e-4  # 0.01 degrees
    assert bool(((again.double() * ways).sum(-1) > 0.9).all())


def test_axes_and_corners_are_exact() -> None:
    axes = torch.cat([torch.eye(3), -torch.eye(3)])
    packed = pack_directions(axes)
    assert packed.shape == (6, 2)
    assert packed.dtype == torch.int16
    assert torch.equal(unpack_directions(packed), axes)
