"""Actions: from what an agent chooses to the camera that the world is asked for next.

Relative and discrete actions keep the camera level: forward and left follow the floor along the heading, up
is the world's, roll is nought and the pitch stays within 60 degrees. A pose goes where it says.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import own_array
from mirage_sim.errors import InputError, InputTypeError, check_finite
from mirage_sim.geometry import from_yaw_pitch, make_pose, quat_wxyz_to_matrix, yaw_pitch

Array = np.ndarray[Any, Any]

DISCRETE_ACTIONS = ("forward", "turn_left", "turn_right", "look_up", "look_down", "stop")


@dataclass(frozen=True)
class ActionConfig:
    """How far one action goes.

    Attributes:
        move: Metres of a full relative move, and of the discrete "forward".
        turn: Radians of a full relative turn, and of the discrete turns and looks.
        max_pitch: Radians that the camera may look up or down.
        reach: Largest coordinate of an absolute position, metres.
    """

    move: float = 0.25
    turn: float = math.radians(15.0)
    max_pitch: float = math.radians(60.0)
    reach: float = 100.0


def move_camera(
    cam2world: Tensor,  # [B, 4, 4]
    motion: Tensor,  # [B, 5]
    max_pitch: float,
) -> Tensor:
    """Move level cameras.

    Args:
        cam2world: Present cameras, [B, 4, 4]; a roll is lost.
        motion: Forward, left, up in metres, yaw (left) and pitch (up) in radians, [B, 5].
        max_pitch: Radians that a camera may look up or down.

    Returns:
        cam2world [B, 4, 4] float32: first moved along the present heading, then turned.

    Source: ours.
    """
    here, motion = cam2world.double(), motion.double()
    yaw, pitch = yaw_pitch(here)  # [B]
    ahead, aside, rise, turn, look = motion.unbind(-1)
    step = torch.stack(
        (ahead * yaw.cos() - aside * yaw.sin(), ahead * yaw.sin() + aside * yaw.cos(), rise), -1
    )  # [B, 3]
    pitch = (pitch + look).clamp(-max_pitch, max_pitch)
    return from_yaw_pitch(here[:, :3, 3] + step, yaw + turn, pitch).float()


class Actions(ABC):
    """One action mode: its space, its checks and where it takes the camera."""

    space: gym.Space[Any]

    def __init__(self, config: ActionConfig) -> None:
        """Build the space.

        Args:
            config: How far one action goes.
        """
        self.config = config

    @abstractmethod
    def parse(self, name: str, value: Any, lead: tuple[int, ...]) -> Array:
        """Check actions.

        Args:
            name: Argument name for messages.
            value: Actions [*lead, ...].
            lead: `()` for one action, `(N,)` for a batch.

        Returns:
            Actions [N, ...], N = 1 for one.

        Raises:
            InputTypeError: If they are no numbers of the right kind.
            InputError: If the shape is wrong or a number is not finite or out of range.
        """

    @abstractmethod
    def targets(self, cam2world: Tensor, actions: Array) -> Tensor:
        """Cameras [B, 4, 4] that parsed actions [B, ...] lead to from cameras [B, 4, 4]."""

    def stops(self, actions: Array) -> Array:
        """Which actions end the episode, bool [B]."""
        return np.zeros(len(actions), dtype=np.bool_)


class RelativeActions(Actions):
    """Forward, left, up, yaw and pitch, each in [-1, 1] of a full move or turn."""

    def __init__(self, config: ActionConfig) -> None:
        """Build the space."""
        super().__init__(config)
        self._box = gym.spaces.Box(-1.0, 1.0, (5,), np.float32)
        self.space = self._box
        self._scale = torch.tensor([config.move] * 3 + [config.turn] * 2, dtype=torch.float64, device="cpu")

    def parse(self, name: str, value: Any, lead: tuple[int, ...]) -> Array:
        """See `Actions.parse`."""
        return parse_box(name, value, lead, self._box)

    def targets(self, cam2world: Tensor, actions: Array) -> Tensor:
        """See `Actions.targets`."""
        motion = torch.from_numpy(actions).double() * self._scale
        return move_camera(cam2world, motion, self.config.max_pitch)


class PoseActions(Actions):
    """The next camera itself: position in metres and `quat_wxyz`, of any length but nought."""

    def __init__(self, config: ActionConfig) -> None:
        """Build the space."""
        super().__init__(config)
        high = np.array([config.reach] * 3 + [1.0] * 4, dtype=np.float32)
        self._box = gym.spaces.Box(-high, high, dtype=np.float32)
        self.space = self._box

    def parse(self, name: str, value: Any, lead: tuple[int, ...]) -> Array:
        """See `Actions.parse`."""
        actions = parse_box(name, value, lead, self._box)
        length = float(np.linalg.norm(actions[:, 3:].astype(np.float64), axis=-1).min())
        if length < 1e-3:
            raise InputError(f"{name} must hold a quat_wxyz in 3:7 that is a rotation, got length {length:g}")
        return actions

    def targets(self, cam2world: Tensor, actions: Array) -> Tensor:
        """See `Actions.targets`."""
        given = torch.from_numpy(actions).double()
        quat_wxyz = torch.nn.functional.normalize(given[:, 3:], dim=-1)
        return make_pose(quat_wxyz_to_matrix(quat_wxyz), given[:, :3]).float()


class DiscreteActions(Actions):
    """One of `DISCRETE_ACTIONS`; "stop", the last, ends the episode and may be left out."""

    def __init__(self, config: ActionConfig, stop_action: bool = True) -> None:
        """Build the space."""
        super().__init__(config)
        count = len(DISCRETE_ACTIONS) if stop_action else DISCRETE_ACTIONS.index("stop")
        self.space = gym.spaces.Discrete(count)
        table = torch.zeros(count, 5, dtype=torch.float64, device="cpu")
        table[0, 0] = config.move
        table[1, 3], table[2, 3] = config.turn, -config.turn
        table[3, 4], table[4, 4] = config.turn, -config.turn
        self._table = table  # [5 or 6, 5]

    def parse(self, name: str, value: Any, lead: tuple[int, ...]) -> Array:
        """See `Actions.parse`."""
        actions = own_array(name, value)
        if actions.dtype.kind not in "iu":
            raise InputTypeError(f"{name} must be an integer, got dtype {actions.dtype}")
        if actions.shape != lead:
            raise InputError(f"{name} must be {list(lead)}, got {list(actions.shape)}")
        outside = [number for number in actions.reshape(-1).tolist() if not 0 <= number < len(self._table)]
        if outside:
            raise InputError(f"{name} must be in 0..{len(self._table) - 1}, got {outside[0]}")
        return actions.reshape(-1).astype(np.int64)

    def targets(self, cam2world: Tensor, actions: Array) -> Tensor:
        """See `Actions.targets`."""
        return move_camera(cam2world, self._table[torch.from_numpy(actions)], self.config.max_pitch)

    def stops(self, actions: Array) -> Array:
        """See `Actions.stops`."""
        ends: Array = actions == DISCRETE_ACTIONS.index("stop")
        return ends


def make_actions(mode: str, config: ActionConfig | None = None, stop_action: bool = True) -> Actions:
    """Build an action mode.

    Args:
        mode: "relative", "pose" or "discrete".
        config: How far one action goes.
        stop_action: Whether discrete actions include "stop".

    Returns:
        The mode.
    """
    kinds: dict[str, Callable[[ActionConfig], Actions]] = {
        "relative": RelativeActions,
        "pose": PoseActions,
        "discrete": partial(DiscreteActions, stop_action=stop_action),
    }
    return kinds[mode](config if config is not None else ActionConfig())


def parse_box(name: str, value: Any, lead: tuple[int, ...], space: gym.spaces.Box) -> Array:
    """Check actions of a Box, see `Actions.parse`."""
    actions = own_array(name, value)
    if actions.dtype.kind not in "iuf":
        raise InputTypeError(f"{name} must be numbers of dtype float32, got dtype {actions.dtype}")
    shape = (*lead, *space.shape)
    if actions.shape != shape:
        raise InputError(f"{name} must be {list(shape)}, got {list(actions.shape)}")
    check_finite(name, actions)
    actions = actions.reshape(-1, *space.shape).astype(np.float64)
    beyond = np.abs(actions) - space.high
    if bool((beyond > 1e-6).any()):
        row, column = np.unravel_index(int(beyond.argmax()), beyond.shape)
        raise InputError(
            f"{name} must be in [{space.low[column]:g}, {space.high[column]:g}] at {column}, "
            f"got {actions[row, column]:g}"
        )
    clipped: Array = np.clip(actions, space.low, space.high).astype(np.float32)
    return clipped
