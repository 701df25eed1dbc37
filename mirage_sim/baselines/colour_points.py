"""Colour points: the memory of Spatia, Voyager, WonderWorld, GEN3C and VMem, built as well as we can.

What was generated is decoded, every pixel gets a place in the world and a colour, voxels keep their first
point; for a view to come the points are rasterised and the picture is sent through the encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.baselines.raster import close_gaps, fill_holes, grow_depth, rasterise
from mirage_sim.baselines.stores import Store, StoredMemory, append
from mirage_sim.errors import InputError, StateError
from mirage_sim.geometry import downsample_depth, rescale_intrinsics
from mirage_sim.geometry.cameras import unproject
from mirage_sim.memory import MemoryConfig, MemoryRead, WriteReport
from mirage_sim.memory.checks import check_cameras, world_mask
from mirage_sim.memory.filters import on_surface
from mirage_sim.memory.overlap import voxel_numbers
from mirage_sim.model.codec import Codec

KNOWN_SHARE = 0.5
"""Share of a cell's pixels that must show a point for the cell to count as known."""
POINT_BYTES = 15  # three float32 and three bytes, as such clouds are stored


@dataclass(frozen=True)
class View:
    """What a cloud of points shows.

    Attributes:
        picture: [B, T, 3, H, W] in [-1, 1], holes filled smoothly.
        depth: z-depth [B, T, H, W] in metres, 0 in holes.
        hit: bool [B, T, H, W], pixels that a point fell into.
    """

    picture: Tensor
    depth: Tensor
    hit: Tensor


class ColourPoints(StoredMemory):
    """Clouds of coloured points of B worlds."""

    wants_frames = True

    def __init__(
        self, codec: Codec, config: MemoryConfig, num_worlds: int, device: torch.device | str, voxel: float
    ) -> None:
        """Make an empty memory.

        Args:
            codec: Encodes the pictures that are drawn.
            config: Sky, edges and range, as for the latent memory.
            num_worlds: Number of worlds B.
            device: Where everything lives.
            voxel: Edge in metres of the voxels that keep one point each.

        Raises:
            InputError: If the voxel is not positive.
        """
        if not voxel > 0:
            raise InputError(f"voxel must be positive metres, got {voxel}")
        self.codec, self.config, self.voxel = codec, config, voxel
        super().__init__(num_worlds, device)

    def draw(self, cam2world: Tensor, intrinsics: Tensor, hw: tuple[int, int], worlds: Tensor) -> View:
        """Draw the clouds.

        Args:
            cam2world: Target cameras [B, T, 4, 4].
            intrinsics: In pixels [B, T, 3, 3].
            hw: Rows and columns in pixels.
            worlds: bool [B], worlds to draw; others stay empty.

        Returns:
            What they show.
        """
        frames = cam2world.shape[1]
        picture = torch.zeros(self.num_worlds, frames, 3, *hw, device=self.device, dtype=torch.float32)
        depth = torch.zeros(self.num_worlds, frames, *hw, device=self.device, dtype=torch.float32)
        for row in worlds.nonzero().flatten().tolist():
            store = self.stores[row]
            for t in range(frames):
                camera = cam2world[row, t], intrinsics[row, t], hw
                picture[row, t], depth[row, t] = rasterise(store["positions"], store["colours"], *camera)
        hit = depth > 0
        picture, depth = close_gaps(picture, depth)
        whole = fill_holes(picture.flatten(0, 1), (depth > 0).flatten(0, 1))
        return View(whole.view_as(picture), depth, hit)

    @torch.no_grad()
    def read(
        self,
        cam2world: Tensor,
        intrinsics: Tensor,
        hw: tuple[int, int],
        worlds: Tensor | None = None,
        touch: bool = True,
    ) -> MemoryRead:
        """Draw the points for target cameras and encode the pictures.

        Args:
            cam2world: [B, T, 4, 4].
            intrinsics: In cells, [B, T, 3, 3].
            hw: Rows and columns of cells.
            worlds: bool [B], worlds to read; others give nothing.
            touch: Not looked at: no read leaves a trace.

        Returns:
            The read. `log_scale` is minus half the log of the share of a cell's pixels that a point fell
            into, as for a surface seen from nearer than it was written; points keep no direction, so
            `view_cos` is 0.

        Raises:
            InputError: If a shape is wrong, a value is not finite, or the codec compresses time.
        """
        del touch
        if self.codec.temporal_stride != 1:
            raise InputError(f"codec must not compress time, got a stride of {self.codec.temporal_stride}")
        check_cameras(cam2world, intrinsics, self.num_worlds)
        chosen = world_mask(worlds, self.num_worlds, self.device)
        stride = self.codec.spatial_stride
        size = (stride * hw[0], stride * hw[1])
        view = self.draw(cam2world, rescale_intrinsics(intrinsics, stride), size, chosen)
        latents = torch.zeros(
            *view.depth.shape[:2], self.codec.channels, *hw, device=self.device, dtype=torch.float32
        )
        if bool(chosen.any()):
            latents[chosen] = self.codec.encode(view.picture[chosen]).float()
        shown, hit = (share_of_cells(part, stride) for part in (view.depth > 0, view.hit))  # [B, T, h, w]
        mask = shown >= KNOWN_SHARE
        scale = -0.5 * hit.clamp(min=1.0 / stride**2).log()
        none = torch.zeros_like(shown)
        return MemoryRead(
            latents=torch.where(mask[:, :, None], latents, 0.0),
            mask=mask,
            depth=torch.where(mask, downsample_depth(view.depth, stride), 0.0),
            offset=torch.zeros(*shown.shape[:2], 2, *hw, device=self.device, dtype=torch.float32),
            log_scale=torch.where(mask, scale, 0.0),
            view_cos=none,
        )

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
        """Give the pixels of cells that may be written a place and a colour.

        Args:
            latents: Not looked at.
            depth: z-depth of cells [B, T, h, w] in metres.
            cam2world: [B, T, 4, 4].
            intrinsics: In cells, [B, T, 3, 3].
            keep_mask: bool [B, T, h, w], cells that may be written.
            worlds: bool [B], worlds to write.
            imagined: Not looked at.
            frames: Pictures [B, T, 3, H, W] in [-1, 1].
            frame_depth: z-depth of pixels [B, T, H, W] in metres, 0 unknown; interpolated if `None`.

        Returns:
            Which cells got new points, and no area.

        Raises:
            StateError: If there are no pictures.
        """
        del latents, imagined
        if frames is None:
            raise StateError("colour points need frames, got none")
        chosen = world_mask(worlds, self.num_worlds, self.device)
        stride = self.codec.spatial_stride
        keep = chosen[:, None, None, None] & on_surface(depth, self.config.edge_threshold)
        keep = keep & (depth > 0) if keep_mask is None else keep & keep_mask & (depth > 0)
        if frame_depth is None:
            metres = grow_depth(depth, stride)
        else:
            sky = to_pixels(self.config.is_sky(depth), stride) & (frame_depth == 0)
            metres = torch.where(sky, self.config.sky_depth, frame_depth)
            keep = chosen[:, None, None, None].expand_as(keep)  # true depths have no edges that fly
        allowed = to_pixels(keep, stride) & (metres > 0)  # [B, T, H, W]
        places = unproject(metres, cam2world, rescale_intrinsics(intrinsics, stride))  # [B, T, H, W, 3]
        colours = ((frames.movedim(2, -1) + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
        added = torch.zeros_like(allowed)
        for row in chosen.nonzero().flatten().tolist():
            added[row] = self._add(self.stores[row], places[row], colours[row], allowed[row])
        return WriteReport(
            share_of_cells(added, stride) > 0,
            torch.zeros(self.num_worlds, device=self.device, dtype=torch.float32),
        )

    def _add(self, store: Store, places: Tensor, colours: Tensor, allowed: Tensor) -> Tensor:
        """Add the first point of every voxel that holds none; bool [T, H, W], which pixels became points."""
        pixel = allowed.flatten().nonzero().squeeze(1)  # [M]
        points = places.reshape(-1, 3)[pixel]
        numbers = voxel_numbers(points, self.voxel)
        sorted_numbers, order = numbers.sort(stable=True)
        first = torch.ones_like(sorted_numbers, dtype=torch.bool)
        first[1:] = sorted_numbers[1:] != sorted_numbers[:-1]
        held = store["voxels"]  # sorted
        if len(held):
            near = torch.searchsorted(held, sorted_numbers).clamp(max=len(held) - 1)
            first &= held[near] != sorted_numbers
        new = order[first].sort().values
        append(store, positions=points[new], colours=colours.reshape(-1, 3)[pixel[new]])
        store["voxels"] = torch.cat([held, numbers[new]]).sort().values
        added = torch.zeros(allowed.numel(), dtype=torch.bool, device=self.device)
        added[pixel[new]] = True
        return added.view_as(allowed)

    def _blank(self) -> Store:
        return {
            "positions": torch.zeros(0, 3, device=self.device, dtype=torch.float32),
            "colours": torch.zeros(0, 3, dtype=torch.uint8, device=self.device),
            "voxels": torch.zeros(0, dtype=torch.int64, device=self.device),
        }

    def _again(self, num_worlds: int) -> ColourPoints:
        return ColourPoints(self.codec, self.config, num_worlds, self.device, self.voxel)

    def _bytes(self, store: Store) -> int:
        return POINT_BYTES * len(store["positions"])  # the index of voxels could be built anew


def to_pixels(cells: Tensor, stride: int) -> Tensor:
    """Repeat every cell of [..., h, w] for its pixels."""
    return cells.repeat_interleave(stride, -2).repeat_interleave(stride, -1)


def share_of_cells(pixels: Tensor, stride: int) -> Tensor:
    """Share of the pixels of every cell that are true: bool [..., H, W] to float32 [..., h, w]."""
    blocks = pixels.float().reshape(
        *pixels.shape[:-2], pixels.shape[-2] // stride, stride, pixels.shape[-1] // stride, stride
    )
    return blocks.mean(dim=(-3, -1))
