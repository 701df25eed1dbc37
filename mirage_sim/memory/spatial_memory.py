"""Latent spatial memory: the step between what was generated and what the next view is generated from.

Tokens are written where they lie in the world and read back, through the z-buffer, by any camera. The memory
is bounded by the place seen rather than by the time walked: a token whose surface is already held, seen as
well or better, is not written again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError, InputError, check_finite, check_shape
from mirage_sim.memory.checks import check_cameras, world_list, world_mask, world_pairs
from mirage_sim.memory.config import DTYPES, MemoryConfig
from mirage_sim.memory.entries import Entries
from mirage_sim.memory.filters import fit_to_keep
from mirage_sim.memory.keyframes import Keyframes, KeyframesConfig
from mirage_sim.memory.overlap import select_references
from mirage_sim.memory.results import MemoryRead, MemoryStats, References, SurfacePatches, WriteReport
from mirage_sim.memory.store import load_state, save_state
from mirage_sim.memory.surface import depth_slack, inside_surface
from mirage_sim.memory.tokens import lift_tokens
from mirage_sim.memory.zbuffer import gather_tokens, match_surface, splat

_KIND = "spatial_memory"
_SAME_PLACE, _SAME_TURN_DEG = 2e-3, 0.2  # metres and degrees within which two cameras count as the same


class SpatialMemory:
    """Latent spatial memory of B worlds on one device; no world's content depends on another's."""

    wants_frames = False

    def __init__(self, config: MemoryConfig, num_worlds: int, device: torch.device | str = "cpu") -> None:
        """Make an empty memory.

        Args:
            config: How tokens are kept.
            num_worlds: Number of worlds B.
            device: Where everything lives.

        Raises:
            InputError: If there is no world.
        """
        if num_worlds < 1:
            raise InputError(f"num_worlds must be positive, got {num_worlds}")
        self.config, self.num_worlds, self.device = config, num_worlds, torch.device(device)
        dtype = DTYPES[config.dtype]
        self._entries = Entries(
            num_worlds, config.channels, dtype, config.initial_capacity, config.max_capacity, self.device
        )
        self.keyframes = Keyframes(config.keyframes, num_worlds, config.channels, dtype, self.device)
        same = KeyframesConfig(config.glimpses, _SAME_PLACE, _SAME_TURN_DEG)
        self._glimpses = Keyframes(same, num_worlds, config.channels, dtype, self.device, "glimpses")
        self._clock = torch.zeros(num_worlds, dtype=torch.int64, device=self.device)  # [B]

    @torch.no_grad()
    def read(
        self,
        cam2world: Tensor,  # [B, T, 4, 4]
        intrinsics: Tensor,  # [B, T, 3, 3]
        hw: tuple[int, int],
        worlds: Tensor | None = None,  # [B]
        touch: bool = True,
    ) -> MemoryRead:
        """Read latent frames for target cameras, and note which entries were of use.

        Args:
            cam2world: Target cameras `[B, T, 4, 4]`.
            intrinsics: Intrinsics `[B, T, 3, 3]` in latent cells.
            hw: Height and width of a latent frame in cells.
            worlds: Boolean `[B]`, worlds to read; others give nothing and are left as they are.
            touch: Whether the read counts as use, which decides what leaves when the memory is full. A look
                that generates nothing, such as a probe for collisions, does not.

        Returns:
            What the memory holds.

        Raises:
            InputError: If a shape is wrong or a value is not finite.

        Source: paper, reading the memory; extra channels, ours.
        """
        check_cameras(cam2world, intrinsics, self.num_worlds)
        chosen = world_mask(worlds, self.num_worlds, self.device)
        cloud = self._entries.cloud(chosen)
        seen = splat(*cloud, cam2world, intrinsics, hw, self.config.depth_tolerance)
        if touch:
            self._clock += chosen
            self._entries.touch(seen.index.flatten(1), self._clock)
        latents = gather_tokens(self._entries.features, seen.index)
        return MemoryRead(latents, seen.mask, seen.depth, seen.offset, seen.log_scale, seen.view_cos)

    @torch.no_grad()
    def recall(self, read: MemoryRead, cam2world: Tensor) -> MemoryRead:
        """Put glimpses before what was read: what the same cameras were shown without a sure place in space.

        Args:
            read: What `read` gave for these cameras.
            cam2world: Target cameras `[B, T, 4, 4]`.

        Returns:
            The same with glimpses as if they had been read just as they were written.

        Source: ours.
        """
        if self.config.glimpses == 0:
            return read
        found, latents, depth = (
            torch.stack(parts, dim=1)
            for parts in zip(*(self._glimpses.find(pose) for pose in cam2world.unbind(1)), strict=True)
        )  # [B, T], [B, T, C, h, w], [B, T, h, w]
        if not bool(found.any()):
            return read
        shown = found[..., None, None] & (depth > 0)
        return MemoryRead(
            latents=torch.where(shown[:, :, None], latents.float(), read.latents),
            mask=read.mask | shown,
            depth=torch.where(shown, depth, read.depth),
            offset=torch.where(shown[:, :, None], 0.0, read.offset),
            log_scale=torch.where(shown, 0.0, read.log_scale),
            view_cos=torch.where(shown, 1.0, read.view_cos),
        )

    def references(
        self,
        cam2world: Tensor,  # [B, 4, 4]
        intrinsics: Tensor,  # [B, 3, 3]
        hw: tuple[int, int],
        count: int,
        voxel: float = 0.1,
        threshold: float = 0.04,
        worlds: Tensor | None = None,  # [B]
    ) -> References:
        """Choose earlier views that saw the same place as the targets will; this does not count as use.

        Args:
            cam2world: Target cameras `[B, 4, 4]`.
            intrinsics: Intrinsics `[B, 3, 3]` in latent cells.
            hw: Height and width of a latent frame in cells.
            count: Number of references wanted.
            voxel: Edge in metres of the voxels by whose overlap they are chosen.
            threshold: Least overlap of a reference.
            worlds: Boolean `[B]`, worlds that need references; all if left out. Others may get none.

        Returns:
            The references, best first.

        Raises:
            InputError: If a shape is wrong or the count is negative.

        Source: paper, retrieval of references.
        """
        check_shape("cam2world", cam2world, [self.num_worlds, 4, 4])
        check_shape("intrinsics", intrinsics, [self.num_worlds, 3, 3])
        target = self.read(cam2world[:, None], intrinsics[:, None], hw, worlds, touch=False)
        return select_references(target, self.keyframes.views, cam2world, intrinsics, count, voxel, threshold)

    def patches(self, world: int) -> SurfacePatches:
        """Give the surface that one world holds, the oldest first; this is no read and leaves no trace."""
        positions, _, footprint, view_dir = self._entries.cloud()
        used = self._entries.used[world]
        return SurfacePatches(positions[world, :used], footprint[world, :used], view_dir[world, :used])

    @torch.no_grad()
    def write(
        self,
        latents: Tensor,  # [B, T, C, h, w]
        depth: Tensor,  # [B, T, h, w]
        cam2world: Tensor,  # [B, T, 4, 4]
        intrinsics: Tensor,  # [B, T, 3, 3]
        keep_mask: Tensor | None = None,  # [B, T, h, w]
        worlds: Tensor | None = None,  # [B]
        imagined: Tensor | None = None,  # [B, T, h, w]
        frames: Tensor | None = None,
        frame_depth: Tensor | None = None,
    ) -> WriteReport:
        """Write latent frames, frame after frame, where they show what the memory does not hold as well.

        The free-space filter knows the keyframes from before this call; the frames of one call are taken to
        agree among themselves.

        Args:
            latents: Tokens `[B, T, C, h, w]`.
            depth: Z-depth `[B, T, h, w]` in metres at latent resolution; 0 or non-finite is unknown.
            cam2world: Cameras `[B, T, 4, 4]`.
            intrinsics: Intrinsics `[B, T, 3, 3]` in latent cells.
            keep_mask: Boolean `[B, T, h, w]`, tokens that may be written, for example those that do not move.
            worlds: Boolean `[B]`, worlds to write; others are left as they are.
            imagined: Boolean `[B, T, h, w]`, cells that are to look the same to the same camera also where
                they are not written, see `recall`; none if left out.
            frames: Not looked at: nothing is decoded in order to write.
            frame_depth: True depths of pixels, if there are any: the tokens' depths are then those of
                surfaces, and the filter for tokens that fly between two has nothing to do.

        Returns:
            Which tokens were written and how much surface they added.

        Raises:
            InputError: If a shape or dtype is wrong or a latent or a camera is not finite.

        Source: paper, updating the memory; the bound and the filters, ours.
        """
        del frames
        check_cameras(cam2world, intrinsics, self.num_worlds)
        count = cam2world.shape[1]
        check_shape("latents", latents, [self.num_worlds, count, self.config.channels, "h", "w"])
        check_finite("latents", latents)
        hw = (latents.shape[-2], latents.shape[-1])
        check_shape("depth", depth, [self.num_worlds, count, *hw])
        chosen = world_mask(worlds, self.num_worlds, self.device)
        allowed = chosen[:, None, None, None].expand(depth.shape)
        if keep_mask is not None:
            check_shape("keep_mask", keep_mask, list(depth.shape))
            if keep_mask.dtype != torch.bool:
                raise InputError(f"keep_mask must be bool, got {keep_mask.dtype}")
            allowed = allowed & keep_mask
        depth = depth.float()
        geometry = lift_tokens(depth, cam2world, intrinsics)
        keep, trusted = fit_to_keep(
            self.config, depth, geometry, allowed, self.keyframes.views, edges=frame_depth is None
        )
        area = depth * depth / (intrinsics[..., 0, 0] * intrinsics[..., 1, 1])[..., None, None]
        area = torch.where(self.config.is_sky(depth), 0.0, area)
        slack = depth_slack(depth, self.config.depth_tolerance)
        written = torch.zeros_like(keep)
        new_area = torch.zeros(self.num_worlds, dtype=torch.float64, device=self.device)
        for t in range(count):
            self._clock += chosen
            cloud = self._entries.cloud(chosen)
            camera = (cam2world[:, t : t + 1], intrinsics[:, t : t + 1])
            held = match_surface(*cloud, *camera, depth[:, t : t + 1], slack[:, t : t + 1])
            self._entries.touch(held.index.flatten(1), self._clock)
            finer = held.log_scale[:, 0] > self.config.refine_log_scale
            news = ~held.mask[:, 0] | finer if self.config.fuse else torch.ones_like(finer)
            fresh = keep[:, t] & news  # [B, h, w]
            self._entries.append(
                fresh.flatten(1),
                latents[:, t].flatten(2).transpose(1, 2),
                geometry.positions[:, t].flatten(1, 2),
                geometry.footprint[:, t].flatten(1),
                geometry.view_dir[:, t].flatten(1, 2),
                self._clock,
            )
            unseen = fresh & ~held.mask[:, 0] & ~inside_surface(held.mask[:, 0], depth[:, t], slack[:, t])
            # in float64, so that the rounded sum does not depend on its order
            new_area += torch.where(unseen, area[:, t], 0.0).double().sum(dim=(1, 2))
            written[:, t] = fresh
            view = torch.where(trusted[:, t], depth[:, t], 0.0)
            self.keyframes.add(latents[:, t], view, cam2world[:, t], intrinsics[:, t], chosen)
            if imagined is not None:
                kept = torch.where(imagined[:, t] & ~fresh, depth[:, t].clamp(min=self.config.min_depth), 0.0)
                self._glimpses.add(latents[:, t], kept, cam2world[:, t], intrinsics[:, t], chosen)
        return WriteReport(written=written, new_area=new_area.float())

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget everything about some worlds.

        Args:
            worlds: Boolean `[B]`; all if left out.

        Raises:
            InputError: If the mask has the wrong shape or dtype.
        """
        chosen = world_mask(worlds, self.num_worlds, self.device)
        self._entries.clear(chosen.nonzero().flatten().tolist())
        self.keyframes.reset(chosen)
        self._glimpses.reset(chosen)
        self._clock = torch.where(chosen, 0, self._clock)

    def fork(self, num_worlds_index: Sequence[int] | Tensor) -> SpatialMemory:
        """Copy worlds into a new, independent memory; only entries in use are copied.

        Args:
            num_worlds_index: Which world each of the new memory's worlds copies; repeats are allowed.

        Returns:
            A memory of as many worlds as the index is long.

        Raises:
            InputError: If the index is empty or names no world.
        """
        index = world_list("num_worlds_index", num_worlds_index, self.num_worlds)
        made = SpatialMemory(self.config, len(index), self.device)
        made.assign(range(len(index)), self, index)
        return made

    def assign(
        self, worlds: Sequence[int] | Tensor, source: SpatialMemory, source_worlds: Sequence[int] | Tensor
    ) -> None:
        """Replace worlds by copies of another memory's worlds.

        Args:
            worlds: Worlds of this memory to replace, each once.
            source: Memory of the same configuration.
            source_worlds: Worlds of `source` to copy, as many.

        Raises:
            InputError: If the memories differ in configuration or an index does not fit.
        """
        if source.config != self.config:
            raise InputError(f"source must have the configuration {self.config}, got {source.config}")
        target, origin = world_pairs(worlds, self.num_worlds, source_worlds, source.num_worlds)
        if source is self:
            source, origin = self.fork(origin), list(range(len(origin)))
        to = torch.tensor(target, device=self.device, dtype=torch.int64)
        since = torch.tensor(origin, device=self.device, dtype=torch.int64)
        self.keyframes.assign(source.keyframes, since, to)
        self._glimpses.assign(source._glimpses, since, to)
        self._entries.assign(source._entries, origin, target)
        self._clock[to] = source._clock[since]

    def state_dict(self) -> dict[str, Tensor]:
        """Give everything the memory holds as tensors by name.

        Returns:
            Tensors on the memory's device; entries of unused rows are zero.
        """
        state = {"clock": self._clock.clone()}
        for part, tensors in self._parts().items():
            state |= {f"{part}.{name}": value.clone() for name, value in tensors.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Args:
            state: Tensors by name, of a memory with the same configuration and number of worlds.

        Raises:
            InputError: If a tensor is missing or does not fit.
        """
        if "clock" not in state:
            raise InputError(f"state must hold clock, got {sorted(state)}")
        check_shape("clock", state["clock"], [self.num_worlds])
        for part, tensors in self._parts().items():
            name = f"{part}."
            tensors.load_state_dict(
                {key.removeprefix(name): value for key, value in state.items() if key.startswith(name)}
            )
        self._clock = state["clock"].to(self.device, copy=True)

    def save(self, folder: Path | str) -> None:
        """Save to a folder, whole or not at all.

        Args:
            folder: Made if it does not exist.

        Raises:
            OSError: If it cannot be written; what was saved there before stays.
        """
        about = {"config": asdict(self.config), "num_worlds": self.num_worlds}
        save_state(folder, _KIND, self.state_dict(), about)

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> SpatialMemory:
        """Load a saved memory.

        Args:
            folder: Where `save` wrote.
            device: Where the memory is to live.

        Returns:
            A memory that goes on bit for bit as the saved one would.

        Raises:
            FileFormatError: If a file is missing, truncated, tampered with or of another kind or version.
        """
        state, about = load_state(folder, _KIND)
        try:
            memory = cls(MemoryConfig(**about["config"]), about["num_worlds"], device)
            memory.load_state_dict(state)
        except (KeyError, TypeError, InputError) as error:
            raise FileFormatError(f"{folder} must hold a spatial memory, got {error}") from error
        return memory

    def stats(self) -> MemoryStats:
        """Count entries and bytes.

        Returns:
            One figure per world, on the CPU.
        """
        entries = torch.tensor(self._entries.used, dtype=torch.int64, device="cpu")
        alone = entries * self._entries.bytes_per_entry
        size = alone
        for ring in (self.keyframes, self._glimpses):
            size = size + ring.views.valid.sum(dim=1).cpu() * ring.bytes_per_view
        return MemoryStats(entries=entries, bytes=size, entry_bytes=alone)

    def _parts(self) -> dict[str, Keyframes | Entries]:
        """What is saved beside the clock, by name."""
        return {"keyframes": self.keyframes, "glimpses": self._glimpses, "entries": self._entries}
