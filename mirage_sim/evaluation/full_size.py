"""Full size: the conditioning path at 704x1280 with every way to remember, without the network.

Depths are the simulator's; latents and colours are noise, since the time does not depend on them. The codec
has random weights.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from mirage_sim.baselines.colour_points import ColourPoints
from mirage_sim.baselines.memories import VOXELS, make_memory
from mirage_sim.checkpoints.shapes import wan_autoencoder
from mirage_sim.errors import InputError
from mirage_sim.geometry import downsample_depth, interpolate_poses, make_intrinsics, rescale_intrinsics
from mirage_sim.memory import Memory, MemoryConfig, MemoryStats, SpatialMemory
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.full_size import full_size_memory
from mirage_sim.scenes import Scene

_MIB = 2.0**20
_FINE = 2  # pixels of the drawn depth are repeated so often


@dataclass(frozen=True)
class Shape:
    """Shape of a chunk.

    Attributes:
        height: Rows of a picture.
        width: Columns.
        frames: Pictures of a chunk.
        latent_frames: Latent frames of a chunk.
        fov_x_deg: Horizontal field of view.
    """

    height: int = 704
    width: int = 1280
    frames: int = 32
    latent_frames: int = 8
    fov_x_deg: float = 75.0


def full_size_codec(device: str = "cpu") -> WanCodec:
    """The codec of Wan2.2-TI2V-5B with random weights in bfloat16; on "meta" it tells its strides only."""
    with torch.device(device):
        autoencoder = wan_autoencoder()(
            base_dim=160,
            decoder_base_dim=256,
            z_dim=48,
            dim_mult=[1, 2, 4, 4],
            num_res_blocks=2,
            attn_scales=[],
            temperal_downsample=[False, True, True],
            is_residual=True,
            in_channels=12,
            out_channels=12,
            patch_size=2,
            scale_factor_temporal=4,
            scale_factor_spatial=16,
            latents_mean=[0.0] * 48,
            latents_std=[1.0] * 48,
        )
    return WanCodec(autoencoder.to(torch.bfloat16))


def empty_memory(name: str, codec: WanCodec) -> Memory:
    """An empty memory of one world for this codec.

    Args:
        name: Of a method that remembers something in space.
        codec: Tells stride and channels.

    Returns:
        The memory.

    Raises:
        InputError: If it does not.
    """
    if name == "latent":
        return SpatialMemory(full_size_memory(codec.channels), 1)
    if name not in ("appended", *VOXELS):
        raise InputError(f"name must be a method with a memory in space, got {name!r}")
    return make_memory(name, codec, MemoryConfig(channels=codec.channels), 1)


def full_size_chunks(
    name: str,
    scene: Scene,
    way: Tensor,  # [chunks * latent_frames + 1, 4, 4]
    codec: WanCodec,
    encoding: EncodingTime,
    shape: Shape | None = None,
    seed: int = 0,
) -> Iterator[dict[str, float]]:
    """Time the conditioning path, chunk by chunk.

    Colour points are drawn for every picture of a chunk, and these are encoded as one video. Points are added
    from as many pictures as there are latent frames only, which is in their favour.

    Args:
        name: Of a method that has a memory.
        scene: Tells the depths.
        way: Cameras of the latent frames.
        codec: Tells stride and channels.
        encoding: Times the codec.
        shape: Of a chunk.
        seed: Of latents and colours.

    Yields:
        Seconds a frame: `draw` (from the memory to latents or pictures), `encode`, `condition` (both) and
        `update`; `cache_mib`, of it `entries_mib`, and `entries`.
    """
    shape = shape if shape is not None else Shape()
    stride, memory = codec.spatial_stride, empty_memory(name, codec)
    hw, cells = (shape.height, shape.width), (shape.height // stride, shape.width // stride)
    lens = make_intrinsics(*cells, shape.fov_x_deg)
    noise = torch.Generator().manual_seed(seed)
    for first in range(0, len(way), shape.latent_frames):
        cameras = way[:1] if first == 0 else way[first - shape.latent_frames + 1 : first + 1]  # [T, 4, 4]
        lenses = lens.expand(1, len(cameras), 3, 3)
        draw = encode = 0.0
        if first > 0:
            began = time.perf_counter()
            if isinstance(memory, ColourPoints):
                video = draw_video(memory, way[first - shape.latent_frames : first + 1], lens, shape)
            else:
                memory.read(cameras[None], lenses, cells).latents.to(torch.bfloat16)
            draw = time.perf_counter() - began
            encode = encoding.of(video) if isinstance(memory, ColourPoints) else 0.0
        latents = torch.randn(1, len(cameras), codec.channels, *cells, generator=noise)
        if isinstance(memory, ColourPoints):
            pixels = true_depths(scene, cameras, lens, hw, stride, _FINE)
            frames = 2.0 * torch.rand(1, len(cameras), 3, *hw, generator=noise) - 1.0
            began = time.perf_counter()
            depth = downsample_depth(pixels, stride)
            memory.write(latents, depth, cameras[None], lenses, frames=frames, frame_depth=pixels)
        else:
            depth = true_depths(scene, cameras, lens, cells, 1, 1)
            depth = torch.where(depth > 0, depth, MemoryConfig.sky_depth)
            began = time.perf_counter()
            memory.write(latents, depth, cameras[None], lenses)
        update = time.perf_counter() - began
        if first > 0:
            parts = {"draw": draw, "encode": encode, "condition": draw + encode, "update": update}
            yield {part: seconds / shape.frames for part, seconds in parts.items()} | cache(memory.stats())


def cache(held: MemoryStats) -> dict[str, float]:
    """Size of the first world."""
    return {
        "cache_mib": float(held.bytes[0]) / _MIB,
        "entries_mib": float(held.entry_bytes[0]) / _MIB,
        "entries": float(held.entries[0]),
    }


def true_depths(
    scene: Scene, cameras: Tensor, lens: Tensor, hw: tuple[int, int], stride: int, repeat: int
) -> Tensor:
    """What the simulator tells, [1, T, H, W] in metres, 0 for the sky.

    Args:
        scene: The flat.
        cameras: [T, 4, 4].
        lens: In cells, [3, 3].
        hw: Rows and columns.
        stride: Pixels per cell of these.
        repeat: Pixels per side that share one drawn depth.

    Returns:
        The depths.
    """
    drawn = rescale_intrinsics(lens, stride / repeat)
    size = (hw[0] // repeat, hw[1] // repeat)
    depth = np.stack([scene.render(camera, drawn, size).depth for camera in cameras])
    return torch.from_numpy(depth)[None].repeat_interleave(repeat, -2).repeat_interleave(repeat, -1)


def draw_video(
    memory: ColourPoints,
    keys: Tensor,  # [T + 1, 4, 4]
    lens: Tensor,  # [3, 3]
    shape: Shape,
) -> Tensor:
    """Draw the pictures of a chunk and the one before it, [1, F + 1, 3, H, W]."""
    times = torch.linspace(0.0, len(keys) - 1.0, shape.frames + 1)
    cameras = interpolate_poses(keys, torch.arange(len(keys)), times)
    pixels = rescale_intrinsics(lens, memory.codec.spatial_stride).expand(1, 1, 3, 3)
    everyone, hw = torch.ones(1, dtype=torch.bool), (shape.height, shape.width)
    return torch.cat(
        [memory.draw(camera[None, None], pixels, hw, everyone).picture for camera in cameras], dim=1
    )


class EncodingTime:
    """How long the codec takes for a chunk's video: measured once, since it does not depend on the video."""

    def __init__(self, codec: WanCodec, frames: int) -> None:
        """Wait for a video.

        Args:
            codec: Encodes.
            frames: Of the video that are encoded, 1 + 4k; the time is scaled up to all of them. 0 encodes
                none and takes no time.
        """
        self._codec, self._frames = codec, frames
        self._seconds: float | None = None if frames else 0.0

    @torch.no_grad()
    def of(self, video: Tensor) -> float:
        """Seconds for a video [1, F + 1, 3, H, W]."""
        if self._seconds is None:
            part = video[:, : self._frames]
            began = time.perf_counter()
            self._codec.encode(part)
            self._seconds = (time.perf_counter() - began) * video.shape[1] / part.shape[1]
        return self._seconds
