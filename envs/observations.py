"""Observations: their spaces, and the arrays in which the latest one of every world is kept."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from torch import Tensor

from mirage_sim.model.world_model import WorldModel

Array = np.ndarray[Any, Any]


def observation_space(names: Sequence[str], model: WorldModel) -> gym.spaces.Dict:
    """Build the space of one world's observation.

    Args:
        names: Keys, see `ExploreConfig`.
        model: Gives the sizes.

    Returns:
        `Dict` of `rgb` uint8 [H, W, 3], `cam2world` [4, 4], `depth` [h, w] metres at latent resolution
        (0 without surface), `coverage` [1] and `latents` [C, h, w], as far as they are asked for.
    """
    config, far = model.config, np.inf
    box = gym.spaces.Box
    spaces: dict[str, gym.Space[Any]] = {
        "rgb": box(0, 255, (config.height, config.width, 3), np.uint8),
        "cam2world": box(-far, far, (4, 4), np.float32),
        "depth": box(0.0, far, model.latent_hw, np.float32),
        "coverage": box(0.0, 1.0, (1,), np.float32),
        "latents": box(-far, far, (model.codec.channels, *model.latent_hw), np.float32),
    }
    return gym.spaces.Dict({name: spaces[name] for name in names})


def as_array(tensor: Tensor) -> Array:
    """A float32 copy on the host."""
    return np.array(tensor.detach().float().cpu().numpy(), dtype=np.float32)
