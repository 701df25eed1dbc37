"""Agents, random: draws from the action space, with a seed of its own."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium as gym

from mirage_sim.agents.protocol import Info


class RandomAgent:
    """Draws actions uniformly; the same seed gives the same actions, episode after episode."""

    def __init__(self, action_space: gym.Space[Any], seed: int = 0) -> None:
        """Seed an own copy of the action space, so that the environment's is left alone.

        Args:
            action_space: Of the environment.
            seed: Decides all actions.
        """
        self._space = copy.deepcopy(action_space)
        self._space.seed(seed)

    def reset(self, observation: Any, info: Info) -> None:
        """Go on drawing; episodes differ from each other."""

    def act(self, observation: Any, info: Info) -> Any:
        """Draw an action."""
        return self._space.sample()
