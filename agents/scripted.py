"""Agents, scripted: follow a plan, pose by pose, and begin it anew from wherever it ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mirage_sim.agents.protocol import Info, present_pose
from mirage_sim.agents.steering import Steering
from mirage_sim.errors import InputError, StateError

Plan = Callable[[Tensor, int], Tensor]

_RESTING = 1e-4
"""Metres within which two poses of a plan count as one place."""
_PATIENCE = 12
"""Actions spent on one pose before it is given up; half a turn in fifteen-degree steps is twelve."""


class ScriptedAgent:
    """Follows a plan made from the first pose of each episode.

    It steers towards absolute poses, so it does not drift; poses behind a surface it may not pass are left
    out. When the plan is done, the next one starts from the pose then reached.
    """

    def __init__(self, plan: Plan, steering: Steering, steps: int = 64) -> None:
        """Wait for an episode.

        Args:
            plan: Makes the walk.
            steering: Turns poses into actions.
            steps: Number of moves that the plan should have.

        Raises:
            InputError: If there is no step.
        """
        if steps < 1:
            raise InputError(f"steps must be at least 1, got {steps}")
        self._plan, self._steering, self._steps = plan, steering, steps
        self._path: Tensor | None = None
        self._next = 1
        self._spent = 0
        self._arrives = False

    def reset(self, observation: Any, info: Info) -> None:
        """Make the plan from the first pose."""
        self._begin(present_pose(observation, info))

    def act(self, observation: Any, info: Info) -> Any:
        """Steer towards the next pose of the plan.

        Raises:
            StateError: Before `reset`.
            InputError: If the camera's pose is nowhere to be found, or the plan leads nowhere.
        """
        if self._path is None:
            raise StateError("act needs reset first: no plan is made")
        present = present_pose(observation, info)
        if self._arrives or bool(info.get("collision")) or self._spent > _PATIENCE + self._steps:
            self._advance()
        for _ in range(2 * len(self._path)):
            if self._next >= len(self._path):
                self._begin(present)
            move = self._steering.toward(present, self._path[self._next], self._rests(self._next))
            self._arrives, self._spent = move.arrives, self._spent + 1
            if move.action is not None:
                return move.action
            self._advance()
        raise InputError("plan must lead to poses that an action reaches, got one that stays where it is")

    def _begin(self, start: Tensor) -> None:
        self._path = self._plan(start, self._steps)
        self._next, self._spent, self._arrives = 1, 0, False

    def _advance(self) -> None:
        self._next += 1
        self._spent, self._arrives = 0, False

    def _rests(self, place: int) -> bool:
        """Whether the walk pauses at this pose, to turn or to end, so that its view matters by itself."""
        path = self._path
        if path is None or place + 1 >= len(path):
            return True
        return bool(torch.dist(path[place, :3, 3], path[place + 1, :3, 3]) < _RESTING)
