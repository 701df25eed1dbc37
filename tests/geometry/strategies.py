"""Random cameras for property tests, built with SciPy so that the code under test is not its own judge."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation
from torch import Tensor

BATCHES = ((), (1,), (3,), (2, 2))
DTYPES = (torch.float32, torch.float64)

dtypes = st.sampled_from(DTYPES)
batches = st.sampled_from(BATCHES)
yaws = st.floats(-math.pi + 1e-3, math.pi - 1e-3)
pitches = st.floats(-1.5, 1.5)
coordinates = st.floats(-20, 20)
_component = st.one_of(st.sampled_from((-1.0, 0.0, 1.0)), st.floats(-1, 1))  # whole numbers give half turns


@st.composite
def quats_wxyz(draw: st.DrawFn, batch: tuple[int, ...] = ()) -> Tensor:
    """Draw unit quaternions `[*batch, 4]`, float64."""
    one = st.tuples(_component, _component, _component, _component).filter(lambda q: math.hypot(*q) > 0.1)
    drawn = np.array([draw(one) for _ in range(math.prod(batch))]).reshape(*batch, 4)
    return torch.from_numpy(drawn / np.linalg.norm(drawn, axis=-1, keepdims=True))


@st.composite
def poses(draw: st.DrawFn, batch: tuple[int, ...] = (), dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw poses `[*batch, 4, 4]` of any rotation."""
    quats = draw(quats_wxyz(batch)).reshape(-1, 4).numpy()  # [M, 4]
    cam2world = np.tile(np.eye(4), (len(quats), 1, 1))
    cam2world[:, :3, :3] = Rotation.from_quat(quats, scalar_first=True).as_matrix()
    cam2world[:, :3, 3] = [[draw(coordinates) for _ in range(3)] for _ in quats]
    return torch.from_numpy(cam2world.reshape(*batch, 4, 4)).to(dtype)


@st.composite
def upright(draw: st.DrawFn) -> Tensor:
    """Draw an upright float32 pose `[4, 4]`, written out from its heading."""
    yaw, pitch = draw(yaws), draw(pitches)
    turn = Rotation.from_euler("ZY", [yaw, -pitch]).as_matrix()  # axes forward, left, up
    cam2world = np.eye(4)
    cam2world[:3, :3] = np.stack([-turn[:, 1], -turn[:, 2], turn[:, 0]], axis=-1)
    cam2world[:3, 3] = [draw(coordinates), draw(coordinates), draw(st.floats(0.2, 2.5))]
    return torch.from_numpy(cam2world).float()


@st.composite
def cameras(draw: st.DrawFn, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw intrinsics `[3, 3]` with unequal focal lengths, some skew and a shifted principal point."""
    fx, fy = draw(st.floats(0.4 * width, 2.0 * width)), draw(st.floats(0.4 * height, 2.0 * height))
    cx, cy = draw(st.floats(0.3 * width, 0.7 * width)), draw(st.floats(0.3 * height, 0.7 * height))
    return torch.tensor([[fx, draw(st.floats(-5, 5)), cx], [0, fy, cy], [0, 0, 1]], dtype=dtype)


@st.composite
def depths(draw: st.DrawFn, height: int, width: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw a fully known depth map `[height, width]` between 0.2 and 20 m."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return (0.2 * 100 ** torch.rand(height, width, generator=generator, dtype=torch.float64)).to(dtype)
