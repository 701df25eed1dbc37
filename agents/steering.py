"""Agents, steering: which action brings the camera from its present pose towards another one.

One class for each action mode of the environment. A steering is stateless; it answers with an action and
whether the target is reached by it, so that the agent knows when to ask for the next one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from mirage_sim.geometry import matrix_to_quat_wxyz, yaw_pitch

_SLACK = 1e-4
"""How far beyond its bounds an action may lie, in shares of it, and still count as within."""


@dataclass(frozen=True)
class Move:
    """An answer of a steering."""

    action: Any
    """Member of the action space; `None` if the camera is there already."""
    arrives: bool
    """Whether the action, unhindered, reaches the target."""


class Steering(Protocol):
    """Gives actions that lead to a pose."""

    def toward(self, present: Tensor, target: Tensor, view: bool) -> Move:
        """Choose an action.

        Args:
            present: Camera now, `[4, 4]`.
            target: Camera wanted, `[4, 4]`.
            view: Whether the direction of view matters, or only the position.

        Returns:
            The action.
        """


@dataclass(frozen=True)
class RelativeSteering:
    """Steers by relative motion: ahead, left and up in level axes, turn left, look up; 1 is the most.

    Attributes:
        metres: Length of a full move along one axis.
        radians: Angle of a full turn.
        max_pitch: Radians that the camera can look up or down; targets beyond are met as far as that goes.
    """

    metres: float
    radians: float
    max_pitch: float

    def toward(self, present: Tensor, target: Tensor, view: bool) -> Move:
        """Move and turn at once, each at most as fast as it can; the direction of the move is kept."""
        yaw, pitch = (float(angle) for angle in yaw_pitch(present.double()))
        goal_yaw, goal_pitch = (float(angle) for angle in yaw_pitch(target.double()))
        x, y, z = (target[:3, 3].double() - present[:3, 3].double()).tolist()
        ahead, left = x * math.cos(yaw) + y * math.sin(yaw), y * math.cos(yaw) - x * math.sin(yaw)
        goal_pitch = min(max(goal_pitch, -self.max_pitch), self.max_pitch)
        turns = np.array([math.remainder(goal_yaw - yaw, math.tau), goal_pitch - pitch]) / self.radians
        move = np.array([ahead, left, z]) / self.metres
        longest = max(1.0, float(np.abs(move).max()))
        widest = max(1.0, float(np.abs(turns).max()))
        action = np.concatenate((move / longest, turns / widest)).astype(np.float32)
        return Move(np.clip(action, -1.0, 1.0), max(longest, widest) <= 1.0 + _SLACK)


@dataclass(frozen=True)
class PoseSteering:
    """Steers by naming the pose: position and quaternion (wxyz)."""

    def toward(self, present: Tensor, target: Tensor, view: bool) -> Move:
        """Go there at once."""
        quat_wxyz = matrix_to_quat_wxyz(target[:3, :3])  # [4]
        return Move(torch.cat((target[:3, 3], quat_wxyz)).numpy().astype(np.float32), True)


@dataclass(frozen=True)
class DiscreteSteering:
    """Steers by steps ahead and turns of fixed size; it faces where it goes.

    Attributes:
        metres: Length of a step ahead.
        radians: Angle of a turn or of a look up or down.
        max_pitch: Radians that the camera can look up or down; targets beyond are met as far as that goes.
        forward: Number of the action that steps ahead.
        left: Number of the action that turns left.
        right: Number of the action that turns right.
        up: Number of the action that looks up.
        down: Number of the action that looks down.
    """

    metres: float
    radians: float
    max_pitch: float
    forward: int
    left: int
    right: int
    up: int
    down: int

    def toward(self, present: Tensor, target: Tensor, view: bool) -> Move:
        """Turn towards the target until a step ahead brings the camera nearer; at last turn to its view."""
        yaw, pitch = (float(angle) for angle in yaw_pitch(present.double()))
        x, y, _ = (target[:3, 3].double() - present[:3, 3].double()).tolist()
        half = self.radians / 2 + _SLACK
        # Half a step is as near as steps can come in general.
        if math.hypot(x, y) > self.metres / 2 + _SLACK:
            turn = math.remainder(math.atan2(y, x) - yaw, math.tau)
            if abs(turn) > half:
                return Move(self.left if turn > 0 else self.right, False)
            remaining = math.hypot(x - self.metres * math.cos(yaw), y - self.metres * math.sin(yaw))
            return Move(self.forward, remaining <= self.metres / 2 + _SLACK and not view)
        if view:
            goal_yaw, goal_pitch = (float(angle) for angle in yaw_pitch(target.double()))
            goal_pitch = min(max(goal_pitch, -self.max_pitch), self.max_pitch)
            turn, look = math.remainder(goal_yaw - yaw, math.tau), goal_pitch - pitch
            if abs(turn) > half:
                return Move(self.left if turn > 0 else self.right, False)
            if abs(look) > half:
                return Move(self.up if look > 0 else self.down, False)
        return Move(None, True)
