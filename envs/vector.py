"""Explore, N worlds: a native vector environment; one call of the shared networks moves all."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space

from mirage_sim.envs.config import RENDER_MODES, ExploreConfig, available_render_modes
from mirage_sim.envs.core import ExploreCore
from mirage_sim.envs.explore import RENDER_FPS, draw_seed
from mirage_sim.envs.starts import StartOptions, check_seed, parse_options
from mirage_sim.envs.window import Window
from mirage_sim.errors import InputError, InputTypeError, StateError, check_shape
from mirage_sim.model.world_model import WorldModel

Array = np.ndarray[Any, Any]


class ExploreVectorEnv(VectorEnv[dict[str, Array], Array, Array]):
    """N worlds of `ExploreEnv` in lockstep, with the results of N single environments with the same seeds.

    The results agree up to the rounding of batched matrix products; the same call on the same machine gives
    the same bytes.

    Made by `gym.make_vec("Mirage/Explore-v0", num_envs=N, vectorization_mode="vector_entry_point")`.
    Resets may be partial through `options["reset_mask"]` (bool [N]); other options go to every world that
    is reset.
    """

    metadata = {  # noqa: RUF012 (gymnasium's)
        "render_modes": list(RENDER_MODES),
        "render_fps": RENDER_FPS,
        "autoreset_mode": AutoresetMode.NEXT_STEP,
    }

    def __init__(
        self,
        num_envs: int = 1,
        world_model: str | Path | WorldModel = "embedded",
        device: str = "cpu",
        action_mode: str = "relative",
        observations: Sequence[str] = ("rgb", "cam2world"),
        memory: bool = True,
        collide: bool = False,
        render_mode: str | None = None,
        max_episode_steps: int | None = None,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
        prompt: str | Path | None = None,
        model_settings: Mapping[str, int | float] | None = None,
    ) -> None:
        """Load or find the model.

        Args:
            num_envs: Number of worlds N.
            world_model: See `ExploreEnv`, as for the others.
            device: See `ExploreEnv`.
            action_mode: See `ExploreEnv`.
            observations: See `ExploreEnv`.
            memory: See `ExploreEnv`.
            collide: See `ExploreEnv`.
            render_mode: See `ExploreEnv`; a window shows the worlds side by side.
            max_episode_steps: Steps after which an episode is truncated; never if `None`.
            autoreset_mode: Gymnasium's "NextStep", "SameStep" or "Disabled".
            prompt: See `ExploreEnv`.
            model_settings: See `ExploreEnv`.

        Raises:
            InputError: If an argument has a wrong value.
            InputTypeError: If an argument has a wrong type.
            FileFormatError: If the model cannot be read.
            StateError: If `render_mode` is "human" and there is no display.
        """
        config = ExploreConfig(
            world_model,
            device,
            action_mode,
            observations,
            memory,
            collide,
            render_mode,
            prompt,
            model_settings,
        )
        self._open(config, num_envs, max_episode_steps, autoreset_mode)

    def _open(
        self,
        config: ExploreConfig,
        num_envs: int,
        max_episode_steps: int | None,
        autoreset_mode: str | AutoresetMode,
    ) -> None:
        for name, value in (("num_envs", num_envs), ("max_episode_steps", max_episode_steps)):
            if name == "max_episode_steps" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise InputError(f"{name} must be an integer of at least 1, got {value!r}")
        try:
            self.autoreset_mode = AutoresetMode(autoreset_mode)
        except ValueError as error:
            modes = [mode.value for mode in AutoresetMode]
            raise InputError(f"autoreset_mode must be one of {modes}, got {autoreset_mode!r}") from error
        self.config, self.max_episode_steps = config, max_episode_steps
        self._set_core(ExploreCore(config, int(num_envs)))

    def _set_core(self, core: ExploreCore) -> None:
        self.core, self.num_envs = core, core.num_worlds
        self.metadata = {
            **type(self).metadata,
            "autoreset_mode": self.autoreset_mode,
            "render_modes": available_render_modes(),
        }
        self.render_mode = self.config.render_mode
        self.single_action_space = core.actions.space
        self.single_observation_space = core.observation_space
        self.action_space = batch_space(self.single_action_space, self.num_envs)
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self._rngs: list[tuple[np.random.Generator, int]] = [
            seeding.np_random() for _ in range(self.num_envs)
        ]
        self._elapsed = np.zeros(self.num_envs, np.int64)
        self._ended = np.zeros(self.num_envs, np.bool_)
        self._window = Window("mirage_sim") if self.render_mode == "human" else None

    @property
    def recording_metadata(self) -> dict[str, str]:
        """What a recording says of the model."""
        return self.core.metadata

    @property  # type: ignore[misc]
    def np_random(self) -> tuple[np.random.Generator, ...]:  # type: ignore[override]
        """Random generator of every world."""
        return tuple(rng for rng, _ in self._rngs)

    @property
    def np_random_seed(self) -> tuple[int, ...]:  # type: ignore[override]
        """Seed of every world's generator."""
        return tuple(seed for _, seed in self._rngs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Array], dict[str, Any]]:
        """Begin episodes.

        Args:
            seed: One integer s from 0 on for s, s + 1, …, or one for each world, `None` to go on drawing.
            options: `reset_mask` bool [N] for a partial reset, and options of `ExploreEnv.reset`.

        Returns:
            Observations and infos; worlds that are not reset show their latest observation.

        Raises:
            InputError: If a seed or an option is wrong; nothing has changed then.
            StateError: If the present place is to be kept and there is none.
            FileFormatError: If a saved world cannot be opened.
        """
        given = dict(options) if isinstance(options, dict) else options
        mask = given.pop("reset_mask", None) if isinstance(given, dict) else None
        rows = list(range(self.num_envs)) if mask is None else self._rows(mask)
        start, seeds = parse_options(given, self.core.model), self._seeds(seed)
        self._start(rows, seeds, start)
        infos: dict[str, Any] = {}
        for row in rows:
            infos = self._add_info(infos, self.core.info(row), row)
        return self._present(), infos

    def step(self, actions: Any) -> tuple[dict[str, Array], Array, Array, Array, dict[str, Any]]:
        """Move the cameras of all worlds and look.

        Args:
            actions: One action for each world; those of worlds that autoreset do not count.

        Returns:
            Observations, rewards, terminations, truncations and infos of all worlds.

        Raises:
            InputError: If the actions have a wrong shape or value; nothing has changed then.
            InputTypeError: If they are no numbers of the right kind.
            StateError: Before the first reset, or where autoreset is disabled and an episode has ended.
        """
        parsed = self.core.actions.parse("actions", actions, (self.num_envs,))
        resetting = self._ended.copy()
        if self.autoreset_mode is AutoresetMode.DISABLED and resetting.any():
            raise StateError(
                f"step needs running episodes, got ended ones in {np.flatnonzero(resetting).tolist()}"
            )
        waiting = [row for row, seed in enumerate(self.core.episodes.seeds) if seed is None]
        if waiting:
            raise StateError(f"step needs reset first: worlds {waiting} have not begun")
        begin = np.flatnonzero(resetting).tolist()
        go_on = np.flatnonzero(~resetting).tolist()
        if begin:
            self._start(begin, [None] * self.num_envs, StartOptions())
        rewards, ends = np.zeros(self.num_envs), np.zeros(self.num_envs, np.bool_)
        if go_on:
            rewards, ends = self.core.advance(go_on, parsed)
            self._elapsed[go_on] += 1
        cut = np.zeros(self.num_envs, np.bool_)
        if self.max_episode_steps is not None:
            cut = self._elapsed >= self.max_episode_steps
        self._ended = ends | cut
        infos: dict[str, Any] = {}
        if self.autoreset_mode is AutoresetMode.SAME_STEP and self._ended.any():
            over = np.flatnonzero(self._ended).tolist()
            for row in over:
                final = {"final_obs": self.core.observation(row), "final_info": self.core.info(row)}
                infos = self._add_info(infos, final, row)
            self._start(over, [None] * self.num_envs, StartOptions())
        for row in range(self.num_envs):
            infos = self._add_info(infos, self.core.info(row), row)
        return self._present(), rewards, ends, cut, infos

    def render(self) -> tuple[Array, ...] | None:
        """Give the latest frame of every world, uint8 [H, W, 3], or show them side by side in a window."""
        if self.render_mode is None:
            return None
        frames = self.core.episodes.latest["rgb"].copy()
        if self._window is None:
            return tuple(frames)
        self._window.show(np.concatenate(list(frames), axis=1))
        return None

    def close_extras(self, **kwargs: Any) -> None:
        """Close the window, if any."""
        if self._window is not None:
            self._window.close()

    def save_world(self, folder: Path | str, world: int = 0) -> None:
        """Save one world, see `ExploreEnv.save_world`."""
        self.core.save(folder, self._one(world))

    def load_world(self, folder: Path | str, world: int = 0) -> tuple[dict[str, Array], dict[str, Any]]:
        """Open a saved world in the place of one of these, see `ExploreEnv.load_world`."""
        mask = np.arange(self.num_envs) == self._one(world)
        return self.reset(options={"world": folder, "reset_mask": mask})

    def fork(self, index: Sequence[int] | None = None) -> ExploreVectorEnv:
        """Copy worlds into a new vector environment over the same model.

        Args:
            index: Which world each new one copies, repeats allowed; each of these once if `None`.

        Returns:
            The new vector environment.
        """
        rows = [self._one(row) for row in (range(self.num_envs) if index is None else index)]
        other = type(self).__new__(type(self))
        other.config, other.autoreset_mode = self.config, self.autoreset_mode
        other.max_episode_steps = self.max_episode_steps
        other._set_core(self.core.fork(rows))
        other._rngs = [copy.deepcopy(self._rngs[row]) for row in rows]
        other._elapsed, other._ended = self._elapsed[rows].copy(), self._ended[rows].copy()
        return other

    def __getstate__(self) -> dict[str, Any]:
        """Arguments and worlds; the model is found or loaded again."""
        return {
            "config": self.config,
            "settings": (self.max_episode_steps, self.autoreset_mode),
            "worlds": self.core.snapshot(),
            "progress": (self._rngs, self._elapsed, self._ended),
            "spec": self.spec,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the environment anew and put the worlds back."""
        self.config = state["config"]
        self.max_episode_steps, self.autoreset_mode = state["settings"]
        self._set_core(ExploreCore(self.config, state["worlds"][0].num_worlds))
        self.core.restore(state["worlds"])
        self._rngs, self._elapsed, self._ended = state["progress"]
        self.spec = state["spec"]

    def _start(self, rows: list[int], seeds: Sequence[int | None], options: StartOptions) -> None:
        rngs = {
            row: seeding.np_random(seeds[row]) if seeds[row] is not None else copy.deepcopy(self._rngs[row])
            for row in rows
        }
        drawn = [draw_seed(rngs[row][0]) if seeds[row] is None else int(seeds[row] or 0) for row in rows]
        self.core.start(rows, drawn, options)
        for row, rng in rngs.items():
            self._rngs[row] = rng
        self._elapsed[rows], self._ended[rows] = 0, False

    def _seeds(self, seed: int | Sequence[int | None] | None) -> list[int | None]:
        if seed is None:
            return [None] * self.num_envs
        if not isinstance(seed, Sequence | np.ndarray) or isinstance(seed, str | bytes):
            first = check_seed("seed", seed)
            return [first + row for row in range(self.num_envs)]
        if len(seed) != self.num_envs:
            raise InputError(f"seed must hold {self.num_envs} numbers, got {len(seed)}")
        return [None if one is None else check_seed(f"seed[{row}]", one) for row, one in enumerate(seed)]

    def _add_info(
        self, vector_infos: dict[str, Any], env_info: dict[str, Any], env_num: int
    ) -> dict[str, Any]:
        """As Gymnasium does it; seeds of more than 64 bits make an array of Python's integers."""
        if env_info.get("seed") is not None and env_info["seed"] >= 2**63:
            held = vector_infos.get("seed", np.zeros(self.num_envs))
            vector_infos = {**vector_infos, "seed": held.astype(np.object_)}
        return super()._add_info(vector_infos, env_info, env_num)

    def _rows(self, mask: Any) -> list[int]:
        if not isinstance(mask, np.ndarray) or mask.dtype != np.bool_:
            raise InputTypeError(f"options['reset_mask'] must be a bool array, got {mask!r}")
        check_shape("options['reset_mask']", mask, [self.num_envs])
        if not mask.any():
            raise InputError("options['reset_mask'] must choose at least one world, got none")
        rows: list[int] = np.flatnonzero(mask).tolist()
        return rows

    def _one(self, world: int) -> int:
        if not 0 <= world < self.num_envs:
            raise InputError(f"world must be in 0..{self.num_envs - 1}, got {world}")
        return int(world)

    def _present(self) -> dict[str, Array]:
        if self._window is not None:
            self.render()
        return self.core.observations()
