"""Retrieved frames: no 3D memory at all; earlier frames whose field of view overlaps are shown as references.

As in WorldMem, but the references carry no pose of their own: they are the generator's, as in the paper.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mirage_sim.baselines.stores import Store, StoredMemory, append
from mirage_sim.errors import check_shape
from mirage_sim.geometry import project, unproject
from mirage_sim.memory import MemoryConfig, MemoryRead, References, WriteReport
from mirage_sim.memory.checks import check_cameras, world_mask
from mirage_sim.memory.config import DTYPES
from mirage_sim.memory.keyframes import KeyframeViews
from mirage_sim.memory.overlap import best_views

DEPTHS = (1.0, 2.0, 4.0)  # metres at which a field of view is probed
SPACING, TURN_DEG = 0.25, 10.0  # a view nearer and less turned than this from the last one is not kept


class RetrievedFrames(StoredMemory):
    """Frames of B worlds with their cameras."""

    def __init__(self, config: MemoryConfig, num_worlds: int, device: torch.device | str) -> None:
        """Make an empty memory.

        Args:
            config: Channels and dtype of the latents.
            num_worlds: Number of worlds B.
            device: Where everything lives.
        """
        self.config = config
        super().__init__(num_worlds, device)

    def read(
        self,
        cam2world: Tensor,
        intrinsics: Tensor,
        hw: tuple[int, int],
        worlds: Tensor | None = None,
        touch: bool = True,
    ) -> MemoryRead:
        """Know nothing: frames have no place in space."""
        del worlds, touch
        check_cameras(cam2world, intrinsics, self.num_worlds)
        shape = (self.config.channels, *hw)
        return MemoryRead.nothing(self.num_worlds, cam2world.shape[1], shape, self.device)

    @torch.no_grad()
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
        """Choose the frames that see most of what the target's field of view holds.

        Args:
            cam2world: Target cameras [B, 4, 4].
            intrinsics: In cells, [B, 3, 3].
            hw: Rows and columns of cells.
            count: Number of references wanted.
            voxel: Not looked at.
            threshold: Least share of the target's field of view.
            worlds: bool [B], worlds that need references; all if `None`. Others get none.

        Returns:
            The references, the later one first among equals.
        """
        del voxel
        check_shape("cam2world", cam2world, [self.num_worlds, 4, 4])
        kept = max(len(store["tokens"]) for store in self.stores)
        views = self._views(kept, intrinsics, hw)
        overlap = torch.zeros(self.num_worlds, kept, device=self.device, dtype=torch.float32)
        for row in world_mask(worlds, self.num_worlds, self.device).nonzero().flatten().tolist():
            store = self.stores[row]
            planes = torch.tensor(DEPTHS, device=self.device, dtype=torch.float32)[:, None, None].expand(
                -1, *hw
            )  # [D, h, w]
            camera = cam2world[row].expand(len(DEPTHS), 4, 4), intrinsics[row].expand(len(DEPTHS), 3, 3)
            points = unproject(planes, *camera).flatten(0, 2)  # [D*h*w, 3]
            for place, pose in enumerate(store["cam2world"]):
                where, depth = project(points, pose, intrinsics[row])
                inside = (depth > 0) & (where >= 0).all(-1) & (where[:, 0] < hw[1]) & (where[:, 1] < hw[0])
                overlap[row, place] = inside.float().mean()
        return best_views(views, overlap, count, threshold)

    @torch.no_grad()
    def write(
        self,
        latents: Tensor,
        depth: Tensor,
        cam2world: Tensor,
        intrinsics: Tensor,
        keep_mask: Tensor | None = None,
        worlds: Tensor | None = None,
        imagined: Tensor | None = None,
        frames: Tensor | None = None,
        frame_depth: Tensor | None = None,
    ) -> WriteReport:
        """Keep frames whose camera is new.

        Args:
            latents: [B, T, C, h, w].
            depth: Not looked at.
            cam2world: [B, T, 4, 4].
            intrinsics: Not looked at: all frames of a world share a lens.
            keep_mask: Not looked at.
            worlds: bool [B], worlds to write.
            imagined: Not looked at.
            frames: Not looked at.
            frame_depth: Not looked at.

        Returns:
            Which cells were kept, and no area.
        """
        del intrinsics, keep_mask, imagined, frames, frame_depth
        written = torch.zeros(depth.shape, dtype=torch.bool, device=self.device)
        for row in world_mask(worlds, self.num_worlds, self.device).nonzero().flatten().tolist():
            for t in range(cam2world.shape[1]):
                pose = cam2world[row, t]
                if self._is_new(self.stores[row]["cam2world"], pose):
                    append(self.stores[row], tokens=latents[row, t][None], cam2world=pose[None])
                    written[row, t] = True
        return WriteReport(written, torch.zeros(self.num_worlds, device=self.device, dtype=torch.float32))

    def _is_new(self, kept: Tensor, pose: Tensor) -> bool:
        """Whether no kept camera [K, 4, 4] is as near and turned as little."""
        near = (kept[:, :3, 3] - pose[:3, 3]).norm(dim=-1) < SPACING
        along = (kept[:, :3, 2] * pose[:3, 2]).sum(dim=-1) > math.cos(math.radians(TURN_DEG))
        return not bool((near & along).any())

    def _views(self, kept: int, intrinsics: Tensor, hw: tuple[int, int]) -> KeyframeViews:
        """All frames, padded to the same number."""
        worlds, device = self.num_worlds, self.device
        latents = torch.zeros(worlds, kept, self.config.channels, *hw, device=device, dtype=torch.float32)
        poses = torch.eye(4, device=device, dtype=torch.float32).repeat(worlds, kept, 1, 1)
        valid = torch.zeros(worlds, kept, dtype=torch.bool, device=device)
        for row, store in enumerate(self.stores):
            count = len(store["tokens"])
            latents[row, :count], poses[row, :count] = store["tokens"].float(), store["cam2world"]
            valid[row, :count] = True
        order = torch.arange(kept, device=device, dtype=torch.int64).expand(worlds, kept)
        lens = intrinsics[:, None].expand(-1, kept, -1, -1)
        return KeyframeViews(
            latents,
            torch.zeros(worlds, kept, *hw, device=device, dtype=torch.float32),
            poses,
            lens,
            valid,
            order,
        )

    def _blank(self) -> Store:
        dtype = DTYPES[self.config.dtype]
        shape = (0, self.config.channels, 1, 1)
        return {
            "tokens": torch.zeros(shape, dtype=dtype, device=self.device),
            "cam2world": torch.zeros(0, 4, 4, device=self.device, dtype=torch.float32),
        }

    def _again(self, num_worlds: int) -> RetrievedFrames:
        return RetrievedFrames(self.config, num_worlds, self.device)
