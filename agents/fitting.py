"""Agents, fitting: how to move in an environment, and how to ask its memory."""

from __future__ import annotations

from typing import Any

import gymnasium as gym

from mirage_sim.agents.frontier import Survey, survey_world
from mirage_sim.agents.steering import DiscreteSteering, PoseSteering, RelativeSteering, Steering
from mirage_sim.envs import ExploreEnv
from mirage_sim.envs.actions import DISCRETE_ACTIONS, ActionConfig
from mirage_sim.errors import InputError


def steering_for(env: gym.Env[Any, Any]) -> Steering:
    """Find the steering for an environment's action space.

    Args:
        env: The environment, wrapped or not.

    Returns:
        The steering.

    Raises:
        InputError: If its actions are none of the three modes.
    """
    space, config = env.action_space, ActionConfig()
    if isinstance(space, gym.spaces.Box) and space.shape == (5,):
        return RelativeSteering(config.move, config.turn, config.max_pitch)
    if isinstance(space, gym.spaces.Box) and space.shape == (7,):
        return PoseSteering()
    stop = DISCRETE_ACTIONS.index("stop")  # the last, which may be left out
    if isinstance(space, gym.spaces.Discrete) and space.n in (stop, stop + 1):
        forward, left, right, up, down = range(stop)
        return DiscreteSteering(config.move, config.turn, config.max_pitch, forward, left, right, up, down)
    raise InputError(f"env must have relative, pose or discrete camera actions, got {space}")


def survey_for(env: gym.Env[Any, Any]) -> Survey | None:
    """Find the memory of an environment.

    Args:
        env: The environment, wrapped or not.

    Returns:
        How to ask it; `None` if the environment keeps none.
    """
    single = env.unwrapped
    if isinstance(single, ExploreEnv) and single.config.memory:
        return survey_world(single.core.world)
    return None
