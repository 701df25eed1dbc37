"""Stores: what every baseline keeps per world, and the verbs of the memory protocol that all share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead, MemoryStats, References, SurfacePatches
from mirage_sim.memory.checks import world_list, world_mask, world_pairs

Store = dict[str, Tensor]


class StoredMemory:
    """B worlds, each a dictionary of tensors whose first axis counts entries."""

    wants_frames = False

    def __init__(self, num_worlds: int, device: torch.device | str) -> None:
        """Make an empty memory.

        Args:
            num_worlds: Number of worlds B.
            device: Where everything lives.

        Raises:
            InputError: If there is no world.
        """
        if num_worlds < 1:
            raise InputError(f"num_worlds must be positive, got {num_worlds}")
        self.num_worlds, self.device = num_worlds, torch.device(device)
        self.stores: list[Store] = [self._blank() for _ in range(num_worlds)]

    def _blank(self) -> Store:
        """What an empty world holds."""
        raise NotImplementedError

    def _again(self, num_worlds: int) -> Any:
        """An empty memory of the same kind for so many worlds."""
        raise NotImplementedError

    def _bytes(self, store: Store) -> int:
        """Bytes that a world's entries take."""
        return sum(part.numel() * part.element_size() for part in store.values())

    def recall(self, read: MemoryRead, cam2world: Tensor) -> MemoryRead:
        """Add nothing."""
        del cam2world
        return read

    def references(
        self,
        cam2world: Tensor,
        intrinsics: Tensor,
        hw: tuple[int, int],
        count: int,
        voxel: float = 0.1,
        threshold: float = 0.04,
        worlds: Tensor | None = None,
    ) -> References:
        """Choose none."""
        del intrinsics, voxel, threshold, worlds
        place = torch.zeros(self.num_worlds, count, dtype=torch.int64, device=cam2world.device)
        return References(
            torch.zeros(self.num_worlds, 0, 1, *hw, device=cam2world.device, dtype=torch.float32),
            place,
            place > 0,
        )

    def patches(self, world: int) -> SurfacePatches:
        """Give the points that one world holds, of no size and without a direction; none without places."""
        positions = self.stores[world].get(
            "positions", torch.zeros(0, 3, device=self.device, dtype=torch.float32)
        )
        return SurfacePatches(positions, torch.zeros_like(positions[:, 0]), torch.zeros_like(positions))

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget everything about some worlds."""
        for row in world_mask(worlds, self.num_worlds, self.device).nonzero().flatten().tolist():
            self.stores[row] = self._blank()

    def fork(self, num_worlds_index: Sequence[int] | Tensor) -> Any:
        """Copy worlds into a new, independent memory."""
        index = world_list("num_worlds_index", num_worlds_index, self.num_worlds)
        made = self._again(len(index))
        made.assign(range(len(index)), self, index)
        return made

    def assign(
        self, worlds: Sequence[int] | Tensor, source: StoredMemory, source_worlds: Sequence[int] | Tensor
    ) -> None:
        """Replace worlds by copies of another memory's worlds.

        Args:
            worlds: Worlds of this memory to replace, each once.
            source: Memory of the same kind.
            source_worlds: Worlds of `source` to copy, as many.

        Raises:
            InputError: If an index does not fit.
        """
        target, origin = world_pairs(worlds, self.num_worlds, source_worlds, source.num_worlds)
        copies = [{name: part.clone() for name, part in source.stores[row].items()} for row in origin]
        for row, copy in zip(target, copies, strict=True):
            self.stores[row] = copy

    def state_dict(self) -> dict[str, Tensor]:
        """Give everything that is held as tensors by name."""
        return {
            f"{row}.{name}": part.clone()
            for row, store in enumerate(self.stores)
            for name, part in store.items()
        }

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Args:
            state: Tensors by name, of a memory of the same kind with as many worlds.

        Raises:
            InputError: If a tensor is missing or too many are there.
        """
        names = {f"{row}.{name}" for row, store in enumerate(self.stores) for name in store}
        if set(state) != names:
            raise InputError(f"state must hold {sorted(names)}, got {sorted(state)}")
        self.stores = [
            {name: state[f"{row}.{name}"].to(self.device, copy=True) for name in store}
            for row, store in enumerate(self.stores)
        ]

    def stats(self) -> MemoryStats:
        """Count entries and bytes, on the CPU."""
        entries = [len(next(iter(store.values()))) for store in self.stores]
        sizes = [self._bytes(store) for store in self.stores]
        return MemoryStats(
            torch.tensor(entries, dtype=torch.int64, device="cpu"),
            torch.tensor(sizes, dtype=torch.int64, device="cpu"),
            torch.tensor(sizes, dtype=torch.int64, device="cpu"),
        )


def append(store: Store, **parts: Tensor) -> None:
    """Append entries to a world."""
    for name, part in parts.items():
        held, new = store[name], part.to(store[name].dtype)
        store[name] = torch.cat([held, new]) if len(held) else new.clone()
