"""Explore, version 1: the same places as in version 0, with rules under which exploring pays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gymnasium.vector import AutoresetMode

from mirage_sim.envs.config import ExploreConfigV1
from mirage_sim.envs.explore import ExploreEnv
from mirage_sim.envs.vector import ExploreVectorEnv
from mirage_sim.model.world_model import WorldModel


class ExploreEnvV1(ExploreEnv):
    """A generated place to explore.

    ## Description
    As in `ExploreEnv`: the agent carries a camera, a video world model generates what it sees, and a latent
    3D memory keeps what was seen.

    The agent's body is an upright cylinder, 0.15 m in radius, that stands on the floor. The floor is the
    plane z = 0 of the world: in `options["cam2world"]` and in pose actions z is the height above it.

    ## Action Space
    As in `ExploreEnv`, but the discrete actions are `Discrete(5)`; with `stop_action=True` they are
    `Discrete(6)`, and the last one stops.

    A motion ends where the body would meet a surface that the memory holds: whatever stands between 0.1 m
    and 1.6 m above the floor (or higher, where the camera is), so that the wall below a window's sill stops
    it as any wall does. `info["collision"]` tells so. The camera stays 0.2 m above the floor and below
    ceilings that were seen. What was never seen stops nobody.

    ## Observation Space
    See `ExploreEnv`.

    ## Rewards
    Newly seen surface within 3.2 m of the camera, in square metres, times how near it is seen: nothing at
    3.2 m, all of it at the camera, in steps of 0.4 m; coming nearer pays the difference. Every step costs
    0.1. What was paid for is kept by place, in voxels of 0.1 m, with the world: nothing is paid twice, not
    even in the next episode in the same place, and what a start shows is not paid. The account does not ask
    the memory; with `memory=False`, too, a place pays once.

    ## Starting State
    See `ExploreEnv`. A world that version 0 saved opens with nothing paid but what it shows at that moment.

    ## Episode End
    With `stop_action=True` the discrete action stop terminates. Nothing else does; `gym.make` truncates after
    `max_episode_steps` (1000).

    ## Arguments
    See `ExploreConfigV1`.

    ## Version History
    - v1: surfaces stop the agent by default, as an upright body rather than a point at the height of the
      camera, and `memory=False` goes without collisions; the discrete action stop is left out by default; the
      reward counts surface within 3.2 m by place and nearness, less a cost for every step.
    - v0: first version. Its reward, surface new to the memory at any distance, favours turning on the spot.
    """

    def __init__(self, world_model: str | Path | WorldModel = "embedded", **arguments: Any) -> None:
        """Load or find the model.

        Args:
            world_model: "embedded", a folder, or a `WorldModel`.
            arguments: Others of `ExploreConfigV1`.

        Raises:
            InputError: If an argument has a wrong value.
            InputTypeError: If an argument has a wrong type.
            FileFormatError: If the model cannot be read.
            StateError: If `render_mode` is "human" and there is no display.
        """
        self._open(ExploreConfigV1(world_model, **arguments))


class ExploreVectorEnvV1(ExploreVectorEnv):
    """N worlds of `ExploreEnvV1` in lockstep, see `ExploreVectorEnv`."""

    def __init__(
        self,
        num_envs: int = 1,
        world_model: str | Path | WorldModel = "embedded",
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        **arguments: Any,
    ) -> None:
        """Load or find the model.

        Args:
            num_envs: Number of worlds N.
            world_model: See `ExploreEnvV1`, as for `arguments`.
            max_episode_steps: Steps after which an episode is truncated; never if `None`.
            autoreset_mode: Gymnasium's "NextStep", "SameStep" or "Disabled".
            arguments: Others of `ExploreConfigV1`.

        Raises:
            InputError: If an argument has a wrong value.
            InputTypeError: If an argument has a wrong type.
            FileFormatError: If the model cannot be read.
            StateError: If `render_mode` is "human" and there is no display.
        """
        config = ExploreConfigV1(world_model, **arguments)
        self._open(config, num_envs, max_episode_steps, autoreset_mode)
