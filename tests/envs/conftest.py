"""Environments of a tiny model that start from a painted picture, so that no flat has to be built."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirage_sim.checkpoints import load_world_model
from mirage_sim.envs import ExploreEnv, ExploreVectorEnv, starts
from mirage_sim.envs import core as core_module
from mirage_sim.envs.starts import FirstFrame, StartOptions
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.model.world_model import WorldModel
from tests.models import save_tiny_world_model

SIZE = 32
WALL = 2.0
"""Metres from the first camera to the wall that a painted start shows."""


def painted_start(options: StartOptions, model: WorldModel, rng: np.random.Generator) -> FirstFrame:
    """A picture of noise on a wall, instead of a scene's view."""
    if options.image is not None:
        return starts.first_frame(options, model, rng)
    seed = options.scene_seed if options.scene_seed is not None else int(rng.integers(1000))
    image = np.random.default_rng(seed).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    pose = from_yaw_pitch((0.0, 0.0, 1.4), float(rng.uniform(-1.0, 1.0))).float()
    depth = np.full((SIZE, SIZE), WALL, np.float32)
    return FirstFrame(image, depth, pose, model.intrinsics())


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random model on disk."""
    return save_tiny_world_model(tmp_path_factory.mktemp("model"), height=SIZE, width=SIZE)


@pytest.fixture(scope="session")
def model(model_folder: Path) -> WorldModel:
    """The same in float32."""
    return load_world_model(model_folder, dtype=torch.float32)


@pytest.fixture
def painted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Start from painted pictures."""
    monkeypatch.setattr(core_module, "first_frame", painted_start)


@pytest.fixture
def make_env(model: WorldModel, painted: None) -> Callable[..., ExploreEnv]:
    """Makes single environments."""

    def make(**arguments: Any) -> ExploreEnv:
        return ExploreEnv(**{"world_model": model, **arguments})

    return make


@pytest.fixture
def make_vector(model: WorldModel, painted: None) -> Callable[..., ExploreVectorEnv]:
    """Makes vector environments."""

    def make(num_envs: int, **arguments: Any) -> ExploreVectorEnv:
        return ExploreVectorEnv(num_envs, **{"world_model": model, **arguments})

    return make


def same(left: Any, right: Any) -> bool:
    """Whether two observations or infos are equal to the byte."""
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[key], right[key]) for key in left)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and left.tobytes() == right.tobytes()
    return bool(left == right)
