"""Memory protocol: what a world asks of whatever remembers for it.

`SpatialMemory` is the project's answer; the baselines that it is compared with are others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from mirage_sim.memory.results import MemoryRead, MemoryStats, References, SurfacePatches, WriteReport


class Memory(Protocol):
    """Memory of B worlds; no world's content depends on another's. See `SpatialMemory` for every argument."""

    num_worlds: int
    wants_frames: bool
    """Whether a write needs the decoded pictures and depths in pixels."""

    def read(
        self,
        cam2world: Tensor,
        intrinsics: Tensor,
        hw: tuple[int, int],
        worlds: Tensor | None = None,
        touch: bool = True,
    ) -> MemoryRead:
        """Tell what is known of the views to come; without `touch`, the memory is left just as it was."""
        ...

    def recall(self, read: MemoryRead, cam2world: Tensor) -> MemoryRead:
        """Add what only the very same cameras are shown again."""
        ...

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
        """Choose earlier views for the generator to look at; the memory is left just as it was."""
        ...

    def patches(self, world: int) -> SurfacePatches:
        """Give the surface that one world holds; this is no read and leaves no trace."""
        ...

    def write(
        self,
        latents: Tensor,
        depth: Tensor,
        cam2world: Tensor,
        intrinsics: Tensor,
        keep_mask: Tensor | None = None,
        worlds: Tensor | None = None,
        imagined: Tensor | None = None,
        frames: Tensor | None = None,  # [B, T, 3, H, W]
        frame_depth: Tensor | None = None,  # [B, T, H, W]
    ) -> WriteReport:
        """Take in what was generated; `frames` are its pictures and `frame_depth` their depths, if known."""
        ...

    def reset(self, worlds: Tensor | None = None) -> None:
        """Forget everything about some worlds."""
        ...

    def fork(self, num_worlds_index: Sequence[int] | Tensor) -> Any:
        """Copy worlds into a new, independent memory."""
        ...

    def assign(
        self, worlds: Sequence[int] | Tensor, source: Any, source_worlds: Sequence[int] | Tensor
    ) -> None:
        """Replace worlds by copies of another memory's worlds."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """Give everything that is held as tensors by name."""
        ...

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave."""
        ...

    def stats(self) -> MemoryStats:
        """Count entries and bytes."""
        ...
