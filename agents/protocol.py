"""Agents, protocol: what walks through a generated place.

An agent is told what the environment answered and says what to do next. It keeps no reference to the
environment, except where its builder was given one to ask the memory (`frontier`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, check_shape
from mirage_sim.geometry import check_pose

Observation = Mapping[str, Any]
Info = Mapping[str, Any]


@runtime_checkable
class Agent(Protocol):
    """Chooses actions."""

    def reset(self, observation: Any, info: Info) -> None:
        """Begin an episode.

        Args:
            observation: What `env.reset` gave.
            info: What `env.reset` gave.
        """

    def act(self, observation: Any, info: Info) -> Any:
        """Choose the next action.

        Args:
            observation: What the last `env.reset` or `env.step` gave.
            info: Likewise.

        Returns:
            A member of the environment's action space.
        """


def present_pose(observation: Any, info: Info) -> Tensor:
    """Find the camera in what an environment answered.

    Args:
        observation: Has `cam2world` `[4, 4]`, or `info` has.
        info: Looked at where the observation has none.

    Returns:
        `cam2world` `[4, 4]`, float32.

    Raises:
        InputError: If there is none, or it is no pose.
    """
    for source in (observation, info):
        if isinstance(source, Mapping) and "cam2world" in source:
            pose = own_floats("cam2world", source["cam2world"], torch.float32, "cpu")
            check_shape("cam2world", pose, [4, 4])
            return check_pose("cam2world", pose)
    raise InputError("observation must hold cam2world, as it or info does by default, got neither")
