"""World: B generated places over one model, each with its own memory, seed and clock.

A step reads the memory for the cameras to come, generates latents, decodes them where pictures are wanted,
predicts their depth, and writes what the memory did not hold. The result for a world does not depend on its
batch-mates. Source: paper, section on the life of the memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.arrays import own_floats
from mirage_sim.errors import InputError, StateError, check_shape
from mirage_sim.geometry import check_pose
from mirage_sim.memory import Memory, MemoryRead, SpatialMemory
from mirage_sim.memory.checks import world_mask
from mirage_sim.model.images import frames_to_tensor, tensor_to_frames
from mirage_sim.model.world_model import WorldModel
from mirage_sim.threads import check_threads
from mirage_sim.torch_state import own_torch_state, with_own_torch_state
from mirage_sim.world.clock import Clock
from mirage_sim.world.config import WorldConfig
from mirage_sim.world.crowding import watch_crowding
from mirage_sim.world.imagine import imagine, perceive_depth, sequence_cameras
from mirage_sim.world.noise import worlds_noise
from mirage_sim.world.prompts import Prompts, embed_prompts
from mirage_sim.world.references import choose_references
from mirage_sim.world.segment import Segment
from mirage_sim.world.start import check_start, first_depth
from mirage_sim.world.state import Context, WorldState
from mirage_sim.world.update import update
from mirage_sim.world.views import Views, among_all, spread_views, view_geometry

Array = np.ndarray[Any, Any]


class World:
    """B worlds and the verbs reset, step, restart, snapshot, restore, fork, save, load."""

    def __init__(
        self,
        model: WorldModel,
        num_worlds: int = 1,
        memory: bool = True,
        config: WorldConfig | None = None,
        make_memory: Callable[[int], Memory] | None = None,
        threads: int | None = None,
    ) -> None:
        """Make worlds that wait for their first frame.

        Args:
            model: Networks and settings, shared by all worlds.
            num_worlds: Number of worlds B.
            memory: Whether the memory is used; ignored if `config` is given.
            config: How worlds are run.
            make_memory: Makes an empty memory for so many worlds; a `SpatialMemory` with the model's settings
                if `None`.
            threads: How many torch uses while these worlds compute, see `threads_to_use`.

        Raises:
            InputError: If there is no world, or threads are below 1.
            InputTypeError: If threads are no integer.
            StateError: If more than one thread is asked for in a forked process.
        """
        if num_worlds < 1:
            raise InputError(f"num_worlds must be at least 1, got {num_worlds}")
        self.model = model
        self.config = config if config is not None else WorldConfig(memory=memory)
        self.num_worlds, self.device, self.threads = num_worlds, model.device, check_threads(threads)
        spatial: Callable[[int], Memory] = partial(SpatialMemory, model.config.memory, device=self.device)
        self._make_memory = make_memory if make_memory is not None else spatial
        self.seeds = [0] * num_worlds
        prompt = (model.config.prompt_tokens, model.config.generator.context_dim)
        frames = (model.config.before, *model.latent_shape)
        with own_torch_state(self.threads):
            self.memory: Memory = self._make_memory(num_worlds)
            self._context = Context.empty(num_worlds, frames, prompt, self.device)

    @property
    def segment_length(self) -> int:
        """Latent frames T of one step."""
        return self.model.config.segment_length

    @property
    def cam2world(self) -> Tensor:
        """Present cameras, [B, 4, 4]."""
        return self._context.poses[:, -1].clone()

    @property
    def intrinsics(self) -> Tensor:
        """Intrinsics in pixels, [B, 3, 3]."""
        return self._context.intrinsics.clone()

    @with_own_torch_state
    def reset(
        self,
        first_frame: Array,
        cam2world: Tensor | Array,
        intrinsics: Tensor | Array | None = None,
        seeds: Sequence[int] | None = None,
        depth: Array | Tensor | None = None,
        worlds: Tensor | None = None,
        prompts: Prompts = None,
    ) -> Segment:
        """Begin worlds from a first frame; what they held is forgotten.

        Args:
            first_frame: uint8 [B, H, W, 3] of the model's image size.
            cam2world: First cameras, [B, 4, 4].
            intrinsics: In pixels, [B, 3, 3] or [3, 3]; the model's own if `None`.
            seeds: One seed per world; 0, 1, … if `None`.
            depth: z-depth in metres, [B, H, W], 0 unknown; predicted if `None`.
            worlds: bool [B], which worlds begin; all if `None`.
            prompts: What is to be seen, for a model that attends to text: one text or embedding [L, D] for
                all worlds, or one each; see `embed_prompts`.

        Returns:
            The first frame as the codec rebuilds it, as often as a latent frame stands for pictures.

        Raises:
            InputError: If a shape, a pose, a depth or the intrinsics are wrong; no world is touched then.
            InputTypeError: If the image is not uint8.
        """
        chosen = world_mask(worlds, self.num_worlds, self.device)
        index = chosen.nonzero().flatten()
        rows = index.tolist()
        start = check_start(self.model, chosen, first_frame, cam2world, intrinsics, seeds, depth)
        prompt = embed_prompts(self.model, prompts, self.num_worlds)[index]
        clock = Clock(self.device)
        pose, lens = start.cam2world[index], start.intrinsics[index]
        frames = frames_to_tensor(start.frames[rows], self.device)[:, None]  # [b, 1, 3, H, W]
        at_rest = 1 + self.model.codec.temporal_stride * (self.model.config.before - 1)
        still = self.model.codec.encode(frames.expand(-1, at_rest, -1, -1, -1)).float()  # [b, P, C, h, w]
        latents = still[:, :1]
        clock.lap("generate")
        views = self._views(pose[:, None], lens, index)
        known = None if start.depth is None else start.depth[index][:, None]  # [b, 1, H, W]
        depth, trusted = first_depth(self.model, latents, frames, known, views.of(index), lens)
        clock.lap("depth")
        made = self.model.codec.decode(latents)  # [b, 1, 3, H, W]
        made = made.expand(-1, self.model.frames_per_latent, -1, -1, -1)
        clock.lap("decode")
        for row in rows:
            self.seeds[row] = start.seeds[row]
        read = MemoryRead.nothing(len(rows), 1, self.model.latent_shape, self.device)
        with self._context.changing(index):
            self.memory.reset(chosen)
            self._context.put(index, Context.beginning(still, pose, lens, prompt))
            seen = frames, known
            return self._finish(latents, read, depth, trusted, views, chosen, clock, made, True, seen)

    @with_own_torch_state
    @watch_crowding()
    def step(self, cam2world: Tensor | Array, decode: bool = True, worlds: Tensor | None = None) -> Segment:
        """Generate what cameras will see.

        Args:
            cam2world: Cameras to come, [B, T, 4, 4] with T the segment length.
            decode: Whether frames are wanted, or latents are enough.
            worlds: bool [B], which worlds go on; all if `None`.

        Returns:
            The segment.

        Raises:
            InputError: If a shape or a pose is wrong; no world is touched then.
            StateError: If a world has no first frame yet.
        """
        chosen = world_mask(worlds, self.num_worlds, self.device)
        given = own_floats("cam2world", cam2world, torch.float32, self.device)
        check_shape("cam2world", given, [self.num_worlds, self.segment_length, 4, 4])
        index = chosen.nonzero().flatten()
        poses = check_pose("cam2world", given[index])  # [b, T, 4, 4]
        self._check_started(index, "step")
        clock = Clock(self.device)
        context = self._context.pick(index)
        cameras = self._views(sequence_cameras(self.model, poses, context), context.intrinsics, index)
        known, shown = self._read(cameras, index, chosen)
        clock.lap("read")
        settings, hw = self.model.config, self.model.latent_hw
        target = slice(settings.overlap, settings.overlap + self.segment_length)
        views, read = cameras.frames(target), known.frames(target)
        geometry = view_geometry(settings.memory, read, *views.of(index))
        references = choose_references(self.memory, self.config, settings.references, views, hw, index)
        noise = worlds_noise([self.seeds[row] for row in index.tolist()], poses, self.model.latent_shape)
        latents = imagine(self.model, shown, poses, geometry, context, references, noise.to(self.device))
        clock.lap("generate")
        made, pictures = None, None
        if decode or self.model.needs_frames or (self.config.memory and self.memory.wants_frames):
            made = self.model.codec.decode(latents, context.latents)  # [b, F, 3, H, W]
            pictures = made[:, self.model.frames_per_latent - 1 :: self.model.frames_per_latent]
        clock.lap("decode")
        depth, trusted = perceive_depth(self.model, latents, read, geometry, pictures, context.intrinsics)
        clock.lap("depth")
        with self._context.changing(index):
            segment = self._finish(latents, read, depth, trusted, views, chosen, clock, made, decode)
            self._context.push(index, latents, poses)
        return segment

    @with_own_torch_state
    def restart(
        self, cam2world: Tensor | Array, decode: bool = True, worlds: Tensor | None = None
    ) -> Segment:
        """Put the camera elsewhere in the same place; the memory stays, the first frame becomes the context.

        Args:
            cam2world: New cameras, [B, 4, 4].
            decode: Whether frames are wanted.
            worlds: bool [B], which worlds restart; all if `None`.

        Returns:
            The view there, T latent frames from a camera at rest.

        Raises:
            InputError: If a shape or a pose is wrong.
            StateError: If a world has no first frame yet.
        """
        chosen = world_mask(worlds, self.num_worlds, self.device)
        given = own_floats("cam2world", cam2world, torch.float32, self.device)
        check_shape("cam2world", given, [self.num_worlds, 4, 4])
        index = chosen.nonzero().flatten()
        check_pose("cam2world", given[index])
        self._check_started(index, "restart")
        context = self._context.pick(index)
        self._context.put(index, context.at_rest())
        try:
            return self.step(given[:, None].expand(-1, self.segment_length, -1, -1), decode, worlds)
        except BaseException:
            if bool(self._context.started[index].all()):
                self._context.put(index, context)
            raise

    @with_own_torch_state
    def snapshot(self, worlds: Tensor | None = None) -> WorldState:
        """Copy worlds; the copy does not change when they go on.

        Args:
            worlds: bool [B]; all if `None`.

        Returns:
            Their state.
        """
        return self._copy(world_mask(worlds, self.num_worlds, self.device).nonzero().flatten())

    @with_own_torch_state
    def restore(self, state: WorldState, worlds: Tensor | None = None) -> None:
        """Take worlds back to a state.

        Args:
            state: What `snapshot` gave, of as many worlds as are restored.
            worlds: bool [B], which worlds; all if `None`.

        Raises:
            InputError: If the numbers of worlds differ.
        """
        index = world_mask(worlds, self.num_worlds, self.device).nonzero().flatten()
        if len(index) != state.num_worlds:
            raise InputError(f"state must hold {len(index)} worlds, got {state.num_worlds}")
        self.memory.assign(index, state.memory, range(state.num_worlds))
        self._context.put(index, state.context)
        for row, seed in zip(index.tolist(), state.seeds, strict=True):
            self.seeds[row] = seed

    @with_own_torch_state
    def fork(self, index: Sequence[int]) -> World:
        """Copy worlds into a new, independent `World` over the same model.

        Args:
            index: Which world each new one copies; repeats are allowed.

        Returns:
            The new worlds.
        """
        other = World(self.model, len(index), True, self.config, self._make_memory, self.threads)
        other.restore(self._copy(torch.as_tensor(list(index), device=self.device, dtype=torch.int64)))
        return other

    @with_own_torch_state
    def save(self, folder: Path | str, world: int = 0, extra: dict[str, Any] | None = None) -> None:
        """Save one world, whole or not at all.

        Args:
            folder: Made if missing.
            world: Which one.
            extra: Anything that JSON can hold, and tensors by name, given back by `load`; tensors on the CPU.

        Raises:
            InputError: If there is no such world.
            StateError: If it has not begun.
            OSError: If it cannot be written.
        """
        mask = self._one(world)
        self._check_started(mask.nonzero().flatten(), "save")
        model = {"model_id": self.model.config.model_id, "weights_sha256": self.model.weights_hash}
        about = {**model, "memory": self.config.memory, "extra": extra or {}}
        self.snapshot(mask).save(folder, about)

    @with_own_torch_state
    def load(self, folder: Path | str, world: int = 0) -> dict[str, Any]:
        """Open a saved world in the place of one of these.

        Args:
            folder: What `save` wrote.
            world: Which one is replaced.

        Returns:
            The `extra` given to `save`.

        Raises:
            InputError: If there is no such world.
            FileFormatError: If the folder is damaged or belongs to another model.
        """
        mask = self._one(world)
        model = (self.model.config.model_id, self.model.weights_hash)
        state, about = WorldState.load(folder, self._make_memory, self.device, model)
        self.restore(state, mask)
        extra: dict[str, Any] = about["extra"]
        return extra

    def _check_started(self, index: Tensor, verb: str) -> None:
        if not bool(self._context.started[index].all()):
            raise StateError(f"{verb} needs worlds that have begun: call reset first")

    def _copy(self, index: Tensor) -> WorldState:
        seeds = [self.seeds[row] for row in index.tolist()]
        return WorldState(self.memory.fork(index), self._context.pick(index), seeds)

    def _one(self, world: int) -> Tensor:
        if not 0 <= world < self.num_worlds:
            raise InputError(f"world must be in 0..{self.num_worlds - 1}, got {world}")
        return torch.arange(self.num_worlds, device=self.device, dtype=torch.int64) == world

    def _views(self, poses: Tensor, intrinsics: Tensor, index: Tensor) -> Views:
        """Lay cameras [b, T, 4, 4] and intrinsics [b, 3, 3] of some worlds out among those of all."""
        every = self.model.intrinsics().to(self.device).repeat(self.num_worlds, 1, 1)
        every[index] = intrinsics
        return spread_views(poses, every, index, self.model.codec.spatial_stride)

    @torch.inference_mode()
    def _read(self, views: Views, index: Tensor, chosen: Tensor) -> tuple[MemoryRead, MemoryRead]:
        """What the chosen worlds' memories know, and the same with glimpses from the same cameras."""
        if not self.config.memory:
            frames = views.cam2world.shape[1]
            nothing = MemoryRead.nothing(len(index), frames, self.model.latent_shape, self.device)
            return nothing, nothing
        read = self.memory.read(*views, self.model.latent_hw, chosen)
        both = (read, self.memory.recall(read, views.cam2world))
        known, shown = (each.worlds(index) for each in both)
        return known, shown

    def _finish(
        self,
        latents: Tensor,  # [b, T, C, h, w]
        read: MemoryRead,
        depth: Tensor,  # [b, T, h, w]
        trusted: Tensor,  # [b, T, h, w]
        views: Views,
        chosen: Tensor,  # [B]
        clock: Clock,
        made: Tensor | None,  # [b, F, 3, H, W]
        decode: bool,
        seen: tuple[Tensor, Tensor | None] | None = None,  # [b, 1, 3, H, W], [b, 1, H, W]
    ) -> Segment:
        """Write, and tell what was made; `seen` are a first frame's own picture and depth."""
        index = chosen.nonzero().flatten()
        whole = partial(among_all, index=index, worlds=self.num_worlds)
        new_area = torch.zeros(self.num_worlds, device=self.device, dtype=torch.float32)
        if self.config.memory:
            shown = seen if seen is not None else (made, None)
            memory = self.model.config.memory
            new_area = update(self.memory, memory, latents, read, depth, trusted, views, chosen, shown)
        clock.lap("write")
        pictures = None
        if made is not None and decode:
            frames = tensor_to_frames(made)  # [b, F, H, W, 3]
            pictures = np.zeros((self.num_worlds, *frames.shape[1:]), np.uint8)
            pictures[index.cpu().numpy()] = frames
        clock.lap("decode")
        known = whole(read.mask)
        return Segment(
            frames=pictures,
            latents=whole(latents),
            depth=whole(torch.where(self.model.config.memory.is_sky(depth), 0.0, depth)),
            offset=whole(read.offset),
            known=known,
            coverage=known.float().mean(dim=(2, 3)),
            new_area=new_area,
            cam2world=whole(views.cam2world[index]),
            timings_ms=clock.laps,
        )
