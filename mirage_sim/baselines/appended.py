"""Appended tokens: the paper's own memory. Every token of every frame is kept, a cell shows the nearest.

No bound, no filter, no choice among tokens of one surface, and nothing told beside latents and mask.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.baselines.raster import nearest_points
from mirage_sim.baselines.stores import Store, StoredMemory, append
from mirage_sim.memory import MemoryConfig, MemoryRead, WriteReport, lift_tokens
from mirage_sim.memory.checks import check_cameras, world_mask
from mirage_sim.memory.config import DTYPES


class AppendedTokens(StoredMemory):
    """Latent tokens of B worlds, all that were ever generated."""

    def __init__(self, config: MemoryConfig, num_worlds: int, device: torch.device | str) -> None:
        """Make an empty memory.

        Args:
            config: Channels and dtype of the tokens.
            num_worlds: Number of worlds B.
            device: Where everything lives.
        """
        self.config = config
        super().__init__(num_worlds, device)

    @torch.no_grad()
    def read(
        self,
        cam2world: Tensor,
        intrinsics: Tensor,
        hw: tuple[int, int],
        worlds: Tensor | None = None,
        touch: bool = True,
    ) -> MemoryRead:
        """Show in every cell the nearest token, of equals the oldest.

        Args:
            cam2world: [B, T, 4, 4].
            intrinsics: In cells, [B, T, 3, 3].
            hw: Rows and columns of cells.
            worlds: bool [B], worlds to read; others give nothing.
            touch: Not looked at: no read leaves a trace.

        Returns:
            The read; where a token fell, its scale and its direction are not told (0).

        Raises:
            InputError: If a shape is wrong or a value is not finite.
        """
        del touch
        check_cameras(cam2world, intrinsics, self.num_worlds)
        chosen = world_mask(worlds, self.num_worlds, self.device)
        shape = (self.config.channels, *hw)
        read = MemoryRead.nothing(self.num_worlds, cam2world.shape[1], shape, self.device)
        for row in chosen.nonzero().flatten().tolist():
            store = self.stores[row]
            for t in range(cam2world.shape[1]):
                index, depth = nearest_points(store["positions"], cam2world[row, t], intrinsics[row, t], hw)
                known = index >= 0
                if len(store["tokens"]):
                    tokens = store["tokens"][index.clamp(min=0)].float() * known[..., None]  # [h, w, C]
                    read.latents[row, t] = tokens.movedim(-1, 0)
                read.mask[row, t], read.depth[row, t] = known, depth
        return read

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
        """Append every token of known depth.

        Args:
            latents: [B, T, C, h, w].
            depth: z-depth [B, T, h, w] in metres.
            cam2world: [B, T, 4, 4].
            intrinsics: In cells, [B, T, 3, 3].
            keep_mask: Not looked at: what the memory held is written again, too.
            worlds: bool [B], worlds to write.
            imagined: Not looked at.
            frames: Not looked at.
            frame_depth: Not looked at.

        Returns:
            What was written, and no area.
        """
        del keep_mask, imagined, frames, frame_depth
        chosen = world_mask(worlds, self.num_worlds, self.device)
        tokens = lift_tokens(depth.float(), cam2world, intrinsics)
        written = tokens.known & chosen[:, None, None, None]
        for row in chosen.nonzero().flatten().tolist():
            keep = written[row]
            append(
                self.stores[row],
                tokens=latents[row].movedim(1, -1)[keep],
                positions=tokens.positions[row][keep],
            )
        return WriteReport(written, torch.zeros(self.num_worlds, device=self.device, dtype=torch.float32))

    def _blank(self) -> Store:
        dtype = DTYPES[self.config.dtype]
        return {
            "tokens": torch.zeros(0, self.config.channels, dtype=dtype, device=self.device),
            "positions": torch.zeros(0, 3, device=self.device, dtype=torch.float32),
        }

    def _again(self, num_worlds: int) -> AppendedTokens:
        return AppendedTokens(self.config, num_worlds, self.device)
