"""Entries: the buffers in which the memory keeps its tokens, bounded, preallocated and independent per world.

Buffers hold `[B, capacity, ...]` and grow by doubling. The entries of a world lie without gaps at the front,
in the order in which they were written, so an entry's index is its age. At the maximum the least recently
read entries leave. Positions are float32; a footprint is kept to one part in two thousand (float16) and a
direction to 0.01 degrees (four bytes).
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.errors import InputError, check_shape
from mirage_sim.memory.directions import pack_directions, unpack_directions

_EVICTED_SHARE = 16
"""At the maximum at least one in so many entries leaves at once, so that not every write has to move
entries."""


class Entries:
    """Tokens of B worlds with what a read needs to know of each."""

    def __init__(
        self,
        num_worlds: int,
        channels: int,
        dtype: torch.dtype,
        initial_capacity: int,
        max_capacity: int,
        device: torch.device,
    ) -> None:
        """Allocate empty buffers.

        Args:
            num_worlds: Number of worlds B.
            channels: Latent channels C.
            dtype: Dtype of the stored tokens.
            initial_capacity: Entries per world that are allocated at once.
            max_capacity: Entries per world at most.
            device: Where they live.
        """
        self.device, self.channels, self.dtype = device, channels, dtype
        self.initial_capacity, self.max_capacity = initial_capacity, max_capacity
        self.used: list[int] = [0] * num_worlds
        self._limits: Tensor  # [B], the same on the device
        self._unpacked: tuple[Tensor, Tensor] | None = None  # see `cloud`
        self._allocate(initial_capacity)

    @property
    def bytes_per_entry(self) -> int:
        """Bytes that one entry takes: token, position, footprint, direction, clock."""
        return self.channels * self.features.element_size() + 4 * 3 + 2 + 4 + 4

    @property
    def capacity(self) -> int:
        """Entries per world that are allocated now."""
        return self.features.shape[1]

    def cloud(self, worlds: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """View the entries as the z-buffer takes them, N being the largest world's number of entries.

        Args:
            worlds: Boolean `[B]`; the entries of other worlds are marked invalid.

        Returns:
            `(positions [B, N, 3], valid [B, N], footprint [B, N], view_dir [B, N, 3])`; positions not copied.
        """
        count = max(self.used, default=0)
        valid = torch.arange(count, device=self.device, dtype=torch.int64) < self._limits[:, None]  # [B, N]
        if worlds is not None:
            valid &= worlds[:, None]
        if self._unpacked is None:
            self._unpacked = self.footprint[:, :count].float(), unpack_directions(self.view_dir[:, :count])
        return self.positions[:, :, :count].transpose(1, 2), valid, *self._unpacked

    def touch(self, index: Tensor, clock: Tensor) -> None:
        """Note that entries were read.

        Args:
            index: int64 `[B, M]`, entries read, -1 for none.
            clock: int64 `[B]`, the present time of every world.
        """
        count = max(self.used, default=0)
        if count == 0:
            return
        # a maximum, so that reading again what was read later cannot turn the clock back
        stamp = torch.where(index >= 0, clock[:, None], 0).int()
        self.last_seen[:, :count].scatter_reduce_(1, index.clamp(min=0), stamp, "amax")

    def append(
        self,
        chosen: Tensor,  # [B, M]
        features: Tensor,  # [B, M, C]
        positions: Tensor,  # [B, M, 3]
        footprint: Tensor,  # [B, M]
        view_dir: Tensor,  # [B, M, 3]
        clock: Tensor,  # [B]
    ) -> None:
        """Append the chosen tokens to their worlds, making room first.

        Args:
            chosen: Boolean `[B, M]`, which tokens to append.
            features: Tokens `[B, M, C]`.
            positions: World positions `[B, M, 3]` in metres.
            footprint: Metres covered by one cell `[B, M]`.
            view_dir: Unit directions from the camera `[B, M, 3]`.
            clock: int64 `[B]`, the present time of every world.

        Raises:
            InputError: If one world is to take more tokens than the maximum.
        """
        counts: list[int] = chosen.sum(dim=1).tolist()
        if not any(counts):
            return
        if max(counts) > self.max_capacity:
            raise InputError(
                f"latents must have at most {self.max_capacity} cells a frame, got {max(counts)}"
            )
        for owner, count in enumerate(counts):
            excess = self.used[owner] + count - self.max_capacity
            if excess > 0:
                self._evict(owner, min(max(excess, self.max_capacity // _EVICTED_SHARE), self.used[owner]))
        self._reserve(max(used + count for used, count in zip(self.used, counts, strict=True)))
        world, token = chosen.nonzero(as_tuple=True)  # each [S], in order of world, then token
        rank = (chosen.cumsum(dim=1) - 1)[world, token]
        place = self._limits[world] + rank
        self.features[world, place] = features[world, token].to(self.dtype)
        self.positions[world, :, place] = positions[world, token]
        self.footprint[world, place] = footprint[world, token].half()
        self.view_dir[world, place] = pack_directions(view_dir[world, token])
        self.last_seen[world, place] = clock[world].int()
        self._set_used([used + count for used, count in zip(self.used, counts, strict=True)])

    def clear(self, worlds: list[int]) -> None:
        """Forget the entries of some worlds; their room stays allocated.

        Args:
            worlds: Worlds to clear.
        """
        gone = set(worlds)
        self._set_used([0 if world in gone else used for world, used in enumerate(self.used)])

    def fork(self, index: list[int]) -> Entries:
        """Copy worlds, used rows only.

        Args:
            index: Which world each new one copies.

        Returns:
            Independent buffers.
        """
        made = Entries(
            len(index), self.channels, self.dtype, self.initial_capacity, self.max_capacity, self.device
        )
        made.assign(self, index, list(range(len(index))))
        return made

    def assign(self, source: Entries, origin: list[int], target: list[int]) -> None:
        """Replace worlds by copies of other buffers' worlds.

        Args:
            source: Buffers of the same channels and dtype.
            origin: Worlds of `source` to copy.
            target: Worlds to replace.
        """
        self._reserve(max((source.used[world] for world in origin), default=0))
        used = list(self.used)
        for ours, theirs in zip(target, origin, strict=True):
            count = source.used[theirs]
            for mine, other in zip(self._buffers(), source._buffers(), strict=True):
                axis = 1 if mine is self.positions else 0
                mine[ours].narrow(axis, 0, count).copy_(other[theirs].narrow(axis, 0, count))
            used[ours] = count
        self._set_used(used)

    def state_dict(self) -> dict[str, Tensor]:
        """Give the used part of every buffer, not copied; N is the largest world's number of entries."""
        count = max(self.used, default=0)
        live = torch.arange(count, device=self.device, dtype=torch.int64) < self._limits[:, None]  # [B, N]
        return {
            "used": self._limits,
            "features": torch.where(live[..., None], self.features[:, :count], self.features.new_zeros(())),
            "positions": self.positions[:, :, :count] * live[:, None],
            "footprint": self.footprint[:, :count] * live,
            "view_dir": self.view_dir[:, :count] * live[..., None],
            "last_seen": self.last_seen[:, :count] * live,
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Args:
            state: Tensors by name.

        Raises:
            InputError: If a tensor is missing or does not fit these buffers.
        """
        worlds = len(self.used)
        missing = {"used", "features", "positions", "footprint", "view_dir", "last_seen"} - set(state)
        if missing:
            raise InputError(f"state must hold the entries' {sorted(missing)}, got {sorted(state)}")
        count = state["footprint"].shape[-1]
        shapes = {
            "used": [worlds],
            "features": [worlds, count, self.channels],
            "positions": [worlds, 3, count],
            "footprint": [worlds, count],
            "view_dir": [worlds, count, 2],
            "last_seen": [worlds, count],
        }
        mine = self.state_dict()
        for name, shape in shapes.items():
            check_shape(f"entries.{name}", state[name], shape)
            if state[name].dtype != mine[name].dtype:
                raise InputError(f"entries.{name} must be {mine[name].dtype}, got {state[name].dtype}")
        used: list[int] = state["used"].tolist()
        if count > self.max_capacity or any(not 0 <= value <= count for value in used):
            raise InputError(f"entries.used must lie in 0..{min(count, self.max_capacity)}, got {used}")
        self._set_used([0] * worlds)
        self._reserve(count)
        self.features[:, :count] = state["features"].to(self.device)
        self.positions[:, :, :count] = state["positions"].to(self.device)
        self.footprint[:, :count] = state["footprint"].to(self.device)
        self.view_dir[:, :count] = state["view_dir"].to(self.device)
        self.last_seen[:, :count] = state["last_seen"].to(self.device)
        self._set_used(used)

    def _evict(self, world: int, count: int) -> None:
        """Remove the `count` least recently read entries of a world, the oldest first among equals."""
        used = self.used[world]
        leaving = torch.argsort(self.last_seen[world, :used], stable=True)[:count]
        staying = torch.ones(used, dtype=torch.bool, device=self.device)
        staying[leaving] = False
        kept = staying.nonzero().squeeze(1)  # in order, so that an index stays an age
        for buffer in self._buffers():
            axis = 1 if buffer is self.positions else 0
            part = buffer[world]
            part.narrow(axis, 0, used - count).copy_(part.index_select(axis, kept))
        self._set_used([used - count if i == world else value for i, value in enumerate(self.used)])

    def _reserve(self, count: int) -> None:
        """Make room for `count` entries per world by doubling."""
        capacity = self.capacity
        if count <= capacity:
            return
        while capacity < count:
            capacity *= 2
        old = self._buffers()
        held = max(self.used, default=0)
        self._allocate(min(capacity, self.max_capacity))
        for mine, other in zip(self._buffers(), old, strict=True):
            axis = 2 if mine is self.positions else 1
            mine.narrow(axis, 0, held).copy_(other.narrow(axis, 0, held))

    def _allocate(self, capacity: int) -> None:
        """Make zeroed buffers; positions are kept by coordinate, which keeps the projection contiguous."""
        worlds = len(self.used)
        on = self.device
        self.features = torch.zeros((worlds, capacity, self.channels), dtype=self.dtype, device=on)
        self.positions = torch.zeros((worlds, 3, capacity), device=on, dtype=torch.float32)
        self.footprint = torch.zeros((worlds, capacity), dtype=torch.float16, device=on)
        self.view_dir = torch.zeros((worlds, capacity, 2), dtype=torch.int16, device=on)
        self.last_seen = torch.zeros((worlds, capacity), dtype=torch.int32, device=on)
        self._set_used(self.used)

    def _buffers(self) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        return self.features, self.positions, self.footprint, self.view_dir, self.last_seen

    def _set_used(self, used: list[int]) -> None:
        """Note how many entries every world has, on the host and on the device, after every change."""
        self.used = used
        self._unpacked = None
        self._limits = torch.tensor(used, dtype=torch.int64, device=self.device)  # [B]
