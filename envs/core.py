"""Core: B episodes over one `World`; the single environment is B = 1, the vector environment any B."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor

from mirage_sim.envs.actions import make_actions
from mirage_sim.envs.body import BodyConfig, swept_share
from mirage_sim.envs.collision import CollisionConfig, free_share
from mirage_sim.envs.config import ExploreConfig
from mirage_sim.envs.episodes import Episodes
from mirage_sim.envs.observations import as_array, observation_space
from mirage_sim.envs.reward import RewardConfig, check_account, nothing_paid, pay
from mirage_sim.envs.shared import shared_model
from mirage_sim.envs.starts import FirstFrame, StartOptions, first_frame
from mirage_sim.envs.timings import Timings
from mirage_sim.errors import FileFormatError, StateError
from mirage_sim.geometry import check_pose, interpolate_poses, rescale_intrinsics
from mirage_sim.hardware import computed_on
from mirage_sim.model.images import tensor_to_frames
from mirage_sim.threads import threads_to_use
from mirage_sim.torch_state import own_torch_state, with_own_torch_state
from mirage_sim.world import Segment, World, WorldState
from mirage_sim.world.prompts import Prompts, embed_prompts

Array = np.ndarray[Any, Any]


class ExploreCore:
    """Starts, moves and describes B worlds."""

    def __init__(self, config: ExploreConfig, num_worlds: int) -> None:
        """Load or find the model and make the worlds.

        Args:
            config: Arguments of the environment.
            num_worlds: Number of worlds B.
        """
        self.config, self.num_worlds, self.threads = config, num_worlds, config.threads
        with own_torch_state(self.threads):
            self._make()

    def _make(self) -> None:
        config = self.config
        self.model = shared_model(config.world_model, config.device, config.model_settings)
        self.world = World(self.model, self.num_worlds, memory=config.memory, threads=config.threads)
        self._prompt = None
        if config.prompt is not None:
            self._prompt = embed_prompts(self.model, config.prompt, 1)[0]  # [L, D]
        self.actions = make_actions(config.action_mode, stop_action=config.stops)
        self.observation_space: gym.Space[Any] = observation_space(config.observations, self.model)
        settings, hw = self.model.config, self.model.latent_hw
        shapes: dict[str, tuple[int, ...]] = {
            "rgb": (settings.height, settings.width, 3),
            "cam2world": (4, 4),
            "depth": hw,
            "coverage": (1,),
            "latents": (self.model.codec.channels, *hw),
        }
        self.episodes = Episodes.empty(self.num_worlds, shapes, self.world.device)
        self._stats: tuple[list[int], list[int]] = ([0] * self.num_worlds, [0] * self.num_worlds)

    @property
    def metadata(self) -> dict[str, str]:
        """What a recording says of the model, of what draws first frames, and of what it is computed on."""
        from mirage_sim.scenes.renderer import RENDERER

        threads = threads_to_use(self.threads, torch.get_num_threads())
        return {
            "model_id": self.model.config.model_id,
            "weights_sha256": self.model.weights_hash,
            "renderer": RENDERER,
            **computed_on(self.model.device, self.model.dtype, threads),
        }

    @with_own_torch_state
    def start(self, rows: Sequence[int], seeds: Sequence[int], options: StartOptions) -> None:
        """Begin episodes.

        Args:
            rows: Worlds that begin.
            seeds: One seed for each of them: the same seed and options give the same episode.
            options: Where they begin.

        Raises:
            StateError: If the present place is to be kept and there is none.
            FileFormatError: If a saved world cannot be opened.

        Whatever is raised, the worlds are then as they were before.
        """
        before = self.snapshot(sorted(rows))
        try:
            self._start(rows, seeds, options)
        except BaseException:
            self.world.restore(before[0], self._mask(rows))
            self.episodes.put(sorted(rows), before[1])
            self._count()
            raise

    def _start(self, rows: Sequence[int], seeds: Sequence[int], options: StartOptions) -> None:
        rngs = [np.random.default_rng(seed) for seed in seeds]
        noise_seeds = [int(rng.integers(2**31)) for rng in rngs]
        if options.world is not None:
            self._load(options.world, rows)
            return
        if options.keep_world:
            self._check_begun(rows, "options['keep_world']")
            self._go_back(rows, noise_seeds, options.cam2world)
        else:
            firsts = [first_frame(options, self.model, rng) for rng in rngs]
            self._begin(
                rows, noise_seeds, firsts, options.prompt if options.prompt is not None else self._prompt
            )
        for row, seed in zip(rows, seeds, strict=True):
            self.episodes.seeds[row] = seed
            self.episodes.collision[row] = self.episodes.ended[row] = False

    @with_own_torch_state
    def advance(self, rows: Sequence[int], actions: Array) -> tuple[Array, Array]:
        """Move cameras and generate what they see.

        Args:
            rows: Worlds that move.
            actions: Parsed actions of all worlds, [B, ...]; those of other worlds do not count.

        Returns:
            Rewards float64 [B] (newly seen square metres) and terminations bool [B], nought for other worlds.

        Raises:
            StateError: If a world has not begun, or its episode has ended.
        """
        self._check_begun(rows, "step")
        if self.episodes.ended[list(rows)].any():
            raise StateError("step needs a running episode, got one that has ended: call reset first")
        chosen = self._mask(rows)
        index = list(rows)
        here = self.world.cam2world.cpu()  # [B, 4, 4]
        there = torch.eye(4, dtype=torch.float32, device="cpu").repeat(self.num_worlds, 1, 1)
        there[index] = self.actions.targets(here[index], actions[index])
        stopped = torch.zeros(self.num_worlds, dtype=torch.bool, device="cpu")
        began = time.perf_counter()
        if self.config.collides:
            share = self._free_share(here, there, chosen)  # [B]
            moved = here[:, :3, 3] + share[:, None].float() * (there[:, :3, 3] - here[:, :3, 3])
            stopped = share < 1.0
            there[stopped, :3, 3] = moved[stopped]
        extra = {"collide": 1000.0 * (time.perf_counter() - began)} if self.config.collides else {}
        segment = self.world.step(self._path(here, there, rows), decode=self.config.decodes, worlds=chosen)
        self.episodes.collision[index] = stopped.numpy()[index]
        self._show(rows, segment, extra)
        rewards = self._rewards(rows, segment)
        ends = np.zeros(self.num_worlds, np.bool_)
        ends[index] = self.actions.stops(actions[index])
        self.episodes.ended[index] = ends[index]
        return rewards, ends

    def observation(self, row: int) -> dict[str, Array]:
        """Copy one world's latest observation."""
        return {name: self.episodes.latest[name][row].copy() for name in self.config.observations}

    def observations(self) -> dict[str, Array]:
        """Copy the latest observation of all worlds, each [B, ...]."""
        return {name: self.episodes.latest[name].copy() for name in self.config.observations}

    def info(self, row: int) -> dict[str, Any]:
        """Describe one world's latest step."""
        told = self.episodes
        info: dict[str, Any] = {
            "coverage": float(told.latest["coverage"][row, 0]),
            "memory_entries": self._stats[0][row],
            "memory_bytes": self._stats[1][row],
            "collision": bool(told.collision[row]),
            "timings_ms": Timings(told.timings_ms[row]),
            "seed": told.seeds[row],
            "intrinsics": as_array(self.world.intrinsics[row]),
        }
        if "cam2world" not in self.config.observations:
            info["cam2world"] = told.latest["cam2world"][row].copy()
        if self.model.codec.temporal_stride > 1 and self.config.decodes:
            info["frames"] = told.frames[row].copy()
        return info

    def save(self, folder: Path | str, row: int = 0) -> None:
        """Save one world, see `World.save`."""
        told = self.episodes
        extra = {
            "seed": told.seeds[row],
            "first_cam2world": told.first_pose[row].tolist(),
            "coverage": float(told.latest["coverage"][row, 0]),
            "depth": told.latest["depth"][row].tolist(),
        }
        if self.config.version > 0:
            extra["paid"] = told.paid[row]
        self.world.save(folder, row, extra)

    def _load(self, folder: Path | str, rows: Sequence[int]) -> None:
        """Open a saved world in the place of some of these, see `World.load`."""
        extra = self.world.load(folder, rows[0])
        self._show_saved(rows, extra, folder)
        state = self.world.snapshot(self._mask([rows[0]]))
        for row in rows[1:]:
            self.world.restore(state, self._mask([row]))
        self._count()

    @with_own_torch_state
    def snapshot(self, rows: Sequence[int] | None = None) -> tuple[WorldState, Episodes]:
        """Copy worlds with their episodes, in the order of their numbers."""
        index = list(range(self.num_worlds)) if rows is None else list(rows)
        return self.world.snapshot(self._mask(index)), self.episodes.copy(index)

    @with_own_torch_state
    def restore(self, state: tuple[WorldState, Episodes]) -> None:
        """Take all worlds over from a snapshot of as many."""
        self.world.restore(state[0])
        self.episodes = state[1].copy(range(self.num_worlds))
        self._count()

    @with_own_torch_state
    def fork(self, rows: Sequence[int]) -> ExploreCore:
        """Copy worlds into a new core over the same model; repeats are allowed."""
        other = ExploreCore(self.config, len(rows))
        other.world = self.world.fork(rows)
        other.episodes = self.episodes.copy(rows)
        other._count()
        return other

    def _begin(
        self,
        rows: Sequence[int],
        noise_seeds: Sequence[int],
        firsts: Sequence[FirstFrame],
        prompt: Prompts,
    ) -> None:
        settings = self.model.config
        images = np.zeros((self.num_worlds, settings.height, settings.width, 3), np.uint8)
        poses = torch.eye(4, dtype=torch.float32, device="cpu").repeat(self.num_worlds, 1, 1)
        lenses = self.model.intrinsics().float().cpu().repeat(self.num_worlds, 1, 1)
        seeds = [0] * self.num_worlds
        depths: dict[int, Array | None] = {}
        for row, seed, first in zip(rows, noise_seeds, firsts, strict=True):
            images[row], poses[row], lenses[row] = first.image, first.cam2world, first.intrinsics
            seeds[row], depths[row] = seed, first.depth
        for given in (True, False):
            some = [row for row, depth in depths.items() if (depth is not None) is given]
            if not some:
                continue
            known = np.zeros(images.shape[:3], np.float32)
            for row in some if given else ():
                known[row] = depths[row]
            told = known if given else None
            segment = self.world.reset(images, poses, lenses, seeds, told, self._mask(some), prompt)
            self.episodes.first_pose[some] = poses[some]
            self._show(some, segment, {})
            for row in some:
                self.episodes.paid[row] = nothing_paid(self.world.device)
            self._rewards(some, segment)  # a start earns nothing, and what it shows is never paid for

    def _go_back(self, rows: Sequence[int], noise_seeds: Sequence[int], pose: Tensor | None) -> None:
        poses = self.episodes.first_pose.clone()
        if pose is not None:
            poses[list(rows)] = pose
        for row, seed in zip(rows, noise_seeds, strict=True):
            self.world.seeds[row] = seed
        segment = self.world.restart(poses, self.config.decodes, self._mask(rows))
        self._show(rows, segment, {})
        self._rewards(rows, segment)

    def _path(self, here: Tensor, there: Tensor, rows: Sequence[int]) -> Tensor:
        """Cameras [B, T, 4, 4] on the way, the last one at its end."""
        frames = self.world.segment_length
        path = there[:, None].repeat(1, frames, 1, 1)
        if frames > 1:
            for row in rows:
                ends = torch.stack([here[row], there[row]])
                times = [(t + 1) / frames for t in range(frames - 1)]
                path[row, :-1] = interpolate_poses(ends, [0.0, 1.0], times)
        return path

    def _show(self, rows: Sequence[int], segment: Segment, extra: dict[str, float]) -> None:
        """Take over what a segment shows of some worlds; its last frame is the observation."""
        told, index = self.episodes, list(rows)
        told.latest["cam2world"][index] = as_array(segment.cam2world[index, -1])
        told.latest["coverage"][index] = as_array(segment.coverage[index].mean(dim=1, keepdim=True))
        told.latest["depth"][index] = as_array(segment.depth[index, -1])
        told.latest["latents"][index] = as_array(segment.latents[index, -1])
        for row in index:
            if segment.frames is not None:
                told.latest["rgb"][row] = segment.frames[row, -1]
                told.frames[row] = segment.frames[row].copy()
            told.timings_ms[row] = {**segment.timings_ms, **extra}
        self._count()

    def _show_saved(self, rows: Sequence[int], extra: dict[str, Any], folder: Path | str) -> None:
        """Show the world opened in the first of `rows` as it was when it was saved."""
        context = self.world.snapshot(self._mask([rows[0]])).context
        latents, pose = context.latents[:, -1:], context.poses[0, -1].cpu()
        made = self.model.codec.decode(latents, context.latents[:, :-1])  # [1, F, 3, H, W]
        frame = tensor_to_frames(made)
        told, shape = self.episodes, self.episodes.latest["depth"].shape[1:]
        try:
            seed = None if extra.get("seed") is None else int(extra["seed"])
            first = torch.tensor(
                extra.get("first_cam2world", pose.tolist()), dtype=torch.float32, device="cpu"
            )
            check_pose("first_cam2world", first)
            coverage = np.float32(extra.get("coverage", 0.0))
            depth = np.asarray(extra.get("depth", np.zeros(shape)), dtype=np.float32).reshape(shape)
            paid = check_account(extra.get("paid", nothing_paid(pose.device))).to(self.world.device)
        except (TypeError, ValueError) as error:
            raise FileFormatError(
                f"{folder} must hold a world that an environment can open: {error}"
            ) from error
        for row in rows:
            told.seeds[row], told.first_pose[row], told.paid[row] = seed or 0, first, paid
            told.collision[row] = told.ended[row] = False
            told.latest["cam2world"][row], told.latest["coverage"][row] = as_array(pose), coverage
            told.latest["depth"][row], told.latest["latents"][row] = depth, as_array(latents[0, 0])
            told.latest["rgb"][row], told.frames[row] = frame[0, -1], frame[0].copy()
            told.timings_ms[row] = {}
            if "paid" not in extra and self.config.version > 0:  # saved by v0, which keeps no account
                flat = torch.from_numpy(depth).to(self.world.device)[None]
                self._pay(row, flat, torch.zeros_like(flat).expand(1, 2, *shape), pose.to(flat.device)[None])

    def _free_share(self, here: Tensor, there: Tensor, chosen: Tensor) -> Tensor:
        if self.config.version == 0:
            return free_share(self.world, here, there, chosen, CollisionConfig())
        return swept_share(self.world, here, there, chosen, BodyConfig())

    def _rewards(self, rows: Sequence[int], segment: Segment) -> Array:
        """What a segment earns, float64 [B]; from v1 on, its surface counts as paid for."""
        if self.config.version == 0:
            earned: Array = segment.new_area.cpu().double().numpy()
            return earned
        earned = np.zeros(self.num_worlds)
        for row in rows:
            earned[row] = self._pay(row, segment.depth[row], segment.offset[row], segment.cam2world[row])
        return earned

    def _pay(self, row: int, depth: Tensor, offset: Tensor, cam2world: Tensor) -> float:
        """Count the surface that a world's views show as paid for; what it earns."""
        cells = rescale_intrinsics(self.world.intrinsics[row], 1.0 / self.model.codec.spatial_stride)
        view, config = (depth, offset, cam2world, cells), RewardConfig()
        area, self.episodes.paid[row] = pay(self.episodes.paid[row], *view, config)
        return area - config.step_cost

    def _count(self) -> None:
        stats = self.world.memory.stats()
        self._stats = (stats.entries.tolist(), stats.bytes.tolist())

    def _mask(self, rows: Sequence[int]) -> Tensor:
        mask = torch.zeros(self.num_worlds, dtype=torch.bool, device="cpu")
        mask[list(rows)] = True
        return mask.to(self.world.device)

    def _check_begun(self, rows: Sequence[int], asked: str) -> None:
        waiting = [row for row in rows if self.episodes.seeds[row] is None]
        if waiting:
            raise StateError(f"{asked} needs a world that has begun: call reset first")
