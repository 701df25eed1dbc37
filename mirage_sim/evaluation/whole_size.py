"""Whole size: a chunk at 704x1280 with all that the method does, on a GPU, with random weights.

Read, condition, denoise with the 5B-shaped backbone and its memory branch, write, decode. Pictures mean
nothing; the time does not depend on them. Depths are those of an empty room: no estimator is timed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mirage_sim.evaluation.full_size import cache
from mirage_sim.geometry import from_yaw_pitch, ray_directions, rescale_intrinsics
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.config import CHUNK, GeneratorConfig, SamplerConfig
from mirage_sim.model.full_size import PUBLISHED_SAMPLER, full_size_config, loaded_shape
from mirage_sim.model.generator import Generator
from mirage_sim.model.world_model import WorldModel
from mirage_sim.perception import Perceived, Seen
from mirage_sim.world import World


def random_generator(config: GeneratorConfig, device: torch.device, seed: int = 0) -> Generator:
    """Build a generator with random weights where it is to run; norms in 32 bit, the rest in bfloat16.

    Args:
        config: Its shape.
        device: Where the weights go; they never exist anywhere else.
        seed: Of the weights.

    Returns:
        The generator, for inference.
    """
    generator = loaded_shape(config).to_empty(device=device)
    chance = torch.Generator(device).manual_seed(seed)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.normal_(std=0.02, generator=chance)
    return generator


class Room:
    """A `DepthEstimator` of an empty room around the origin, from the geometry that it is shown."""

    needs_frames = False

    def __init__(self, size: tuple[float, float, float] = (8.0, 6.0, 2.8), eye: float = 1.4) -> None:
        """Build the room.

        Args:
            size: Extent along x, y and z in metres.
            eye: Height in metres of the cameras over the floor, at z = 0.
        """
        self._low = torch.tensor([-size[0] / 2, -size[1] / 2, -eye])
        self._high = torch.tensor([size[0] / 2, size[1] / 2, size[2] - eye])
        self.cameras = torch.empty(0)  # [N, 4, 4], of the views that are asked for next

    def estimate(self, seen: Seen) -> Perceived:
        """Tell the depths of N views."""
        rows, columns = seen.latents.shape[-2:]
        stride = 2.0 * seen.intrinsics[0, 0, 2] / columns  # pixels of a cell's side
        lens = rescale_intrinsics(seen.intrinsics, float(1.0 / stride))
        rays = ray_directions(self.cameras, lens, (rows, columns))  # [N, h, w, 3]
        walls = torch.where(rays > 0, self._high.to(rays), self._low.to(rays))
        depth = ((walls - self.cameras[:, None, None, :3, 3]) / rays).abs().amin(dim=-1)  # [N, h, w]
        everywhere = torch.ones_like(depth, dtype=torch.bool)
        return Perceived(depth, everywhere, everywhere)


def walk(steps: int) -> Tensor:
    """Cameras [steps + 1, 4, 4] on a circle of 2 m in the room, looking ahead; a lap has 160 steps."""
    angle = torch.linspace(0.0, 2.0 * math.pi * steps / 160.0, steps + 1)
    places = torch.stack([2.0 * angle.sin(), -2.0 * angle.cos(), torch.zeros_like(angle)], dim=-1)
    return from_yaw_pitch(places, angle)


def whole_chunks(
    generator: Generator,
    codec: WanCodec,
    chunks: int,
    size: tuple[int, int] = (704, 1280),
    length: int = CHUNK,
    sampler: SamplerConfig = PUBLISHED_SAMPLER,
    seed: int = 0,
) -> Iterator[dict[str, float]]:
    """Time whole chunks of a world.

    Args:
        generator: Denoises.
        codec: Encodes and decodes; its device is where all happens.
        chunks: How many.
        size: Rows and columns of a picture.
        length: Latent frames of a chunk.
        sampler: How latents are drawn.
        seed: Of first frame and noise.

    Yields:
        Seconds a frame: `condition`, `generate`, `update`, `show`, `total`; `cache_mib`, `entries`, the
        `references` that were seen and `peak_mib`, the most memory of the GPU so far (0 on a CPU).
    """
    sizes = {"height": size[0], "width": size[1], "segment_length": length}
    config = full_size_config(generator.config, **sizes, sampler=sampler)
    room = Room()
    model = WorldModel(config, codec, generator, room)
    world, way = World(model), walk(chunks * length).to(model.device)
    picture = np.random.default_rng(seed).integers(0, 256, (1, *size, 3), dtype=np.uint8)
    room.cameras = way[:1]
    prompt = torch.zeros(config.prompt_tokens, generator.config.context_dim)
    world.reset(picture, way[:1], seeds=[seed], prompts=prompt)
    seen: list[int] = []
    watch = generator.register_forward_pre_hook(lambda _, given: seen.append(_frames(given[4])))
    try:
        for first in range(1, len(way), length):
            room.cameras = way[first : first + length]
            told = world.step(room.cameras[None]).timings_ms
            laps = {
                "condition": told["read"],
                "generate": told["generate"],
                "update": told["depth"] + told["write"],
                "show": told["decode"],
            }
            frames = length * model.frames_per_latent
            parts = {name: ms / 1000.0 / frames for name, ms in laps.items()}
            device = model.device
            peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
            held = cache(world.memory.stats())
            yield parts | {"total": sum(parts.values()), "peak_mib": peak, "references": seen[-1]} | held
    finally:
        watch.remove()


def _frames(latents: Tensor | None) -> int:
    return 0 if latents is None else latents.shape[1]
