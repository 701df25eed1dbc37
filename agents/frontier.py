"""Agents, frontier: turns and walks towards what the memory has not seen.

It asks the memory what it would read from the present place in other directions, at a small part of the cost
of generating them, and turns where most is unknown. Where all around is known it walks the freest way.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mirage_sim.agents.protocol import Info, present_pose
from mirage_sim.agents.steering import Steering
from mirage_sim.errors import StateError
from mirage_sim.geometry import from_yaw_pitch, rescale_intrinsics, yaw_pitch
from mirage_sim.world import World

Survey = Callable[[Tensor], tuple[Tensor, Tensor]]
"""From `cam2world` `[N, 4, 4]` to the share of each view that is remembered and metres free ahead, `[N]`."""


@dataclass(frozen=True)
class FrontierConfig:
    """How the explorer decides.

    Attributes:
        step_metres: Length of a step.
        turn_degrees: Angle of a turn.
        headings: Directions looked into, evenly around.
        unknown_share: A direction is worth a look if more than this share of it is unknown.
        turn_cost: Share of unknown that a further turn must gain to be worth it.
        clearance: Metres that must be free to step ahead.
    """

    step_metres: float = 0.2
    turn_degrees: float = 15.0
    headings: int = 24
    unknown_share: float = 0.25
    turn_cost: float = 0.02
    clearance: float = 0.8


class FrontierAgent:
    """Explores; with a survey of the memory by plan, without one by the coverage of what it sees."""

    def __init__(
        self, steering: Steering, survey: Survey | None = None, config: FrontierConfig | None = None
    ) -> None:
        """Wait for an episode.

        Args:
            steering: Turns poses into actions.
            survey: Asks the memory; `None` where there is none.
            config: How it decides.
        """
        self._steering, self._survey = steering, survey
        self._config = config if config is not None else FrontierConfig()
        self._turns_left: int | None = None
        self._walking = False

    def reset(self, observation: Any, info: Info) -> None:
        """Forget the way that was taken."""
        self._turns_left = 0
        self._walking = False

    def act(self, observation: Any, info: Info) -> Any:
        """Turn towards the unknown, or walk.

        Raises:
            StateError: Before `reset`.
            InputError: If the camera's pose is nowhere to be found.
        """
        if self._turns_left is None:
            raise StateError("act needs reset first")
        present = present_pose(observation, info)
        if self._survey is None:
            turns = self._without_survey(info)
        else:
            turns = self._with_survey(present, self._survey, bool(info.get("collision")))
        yaw, _ = yaw_pitch(present)
        if turns:
            step = math.copysign(math.radians(self._config.turn_degrees), turns)
            target = from_yaw_pitch(present[:3, 3], yaw + step)
        else:
            ahead = torch.stack((yaw.cos(), yaw.sin(), torch.zeros_like(yaw)))  # [3]
            target = from_yaw_pitch(present[:3, 3] + self._config.step_metres * ahead, yaw)
        return self._steering.toward(present, target, True).action

    def _with_survey(self, present: Tensor, survey: Survey, blocked: bool) -> int:
        """Number of turns to make, positive to the left; 0 walks ahead."""
        config = self._config
        around = config.headings // 2
        offsets = torch.arange(-around, config.headings - around, dtype=torch.float32, device="cpu")  # [N]
        yaw, _ = yaw_pitch(present)
        angles = yaw + offsets * (math.tau / config.headings)
        known, free = survey(from_yaw_pitch(present[:3, 3].expand(len(offsets), 3), angles))
        gain = 1.0 - known - config.turn_cost * offsets.abs()  # [N]
        if blocked:
            free = torch.where(offsets == 0, torch.zeros_like(free), free)
        best = int(gain.argmax())
        turn = int(offsets[best])
        if turn and 1.0 - float(known[best]) > config.unknown_share:
            self._walking = False
            return turn
        if float(free[around]) >= config.clearance and (self._walking or int(free.argmax()) == around):
            return 0
        # The freest way is followed until it ends, or two equally free ones would be swung between.
        turn = int(offsets[int(free.argmax())])
        self._walking = abs(turn) <= 1
        return turn

    def _without_survey(self, info: Info) -> int:
        """Walk while there is something new, turn away from walls and from what is known well."""
        turns = self._turns_left or 0
        if not turns and info.get("collision"):
            turns = 6
        elif not turns and float(info.get("coverage", 0.0)) > 0.9:
            turns = 3
        self._turns_left = max(0, turns - 1)
        return turns


def survey_world(world: World, which: int = 0) -> Survey:
    """Ask the memory of a running world.

    Args:
        world: A `mirage_sim.world.World`.
        which: Which of its places.

    Returns:
        The survey; cells whose depth is unknown do not block the way.
    """

    def survey(cam2world: Tensor) -> tuple[Tensor, Tensor]:
        model, count = world.model, cam2world.shape[0]
        lens = rescale_intrinsics(world.intrinsics[which], 1.0 / model.codec.spatial_stride)  # [3, 3]
        cameras = cam2world.to(world.device).expand(world.num_worlds, -1, -1, -1)  # [B, N, 4, 4]
        lenses = lens.expand(world.num_worlds, count, 3, 3)
        asked = torch.arange(world.num_worlds, device=world.device, dtype=torch.int64) == which
        # The walk must not depend on who looks around, so this read does not count as use.
        read = world.memory.read(cameras, lenses, model.latent_hw, asked, touch=False)
        mask, depth = read.mask[which].cpu(), read.depth[which].cpu()  # [N, h, w]
        height, width = mask.shape[1:]
        middle = (
            slice(None),
            slice(height // 4, height - height // 4),
            slice(width // 4, width - width // 4),
        )
        ahead = torch.where(mask, depth, torch.inf)[middle].flatten(1)  # [N, M]
        return mask.float().mean(dim=(1, 2)), ahead.amin(dim=1)

    return survey
