"""Whole size: a chunk at 704x1280 with all that the method does, on a GPU, with random weights.

Read, condition, denoise with the 5B-shaped backbone and its memory branch, write, decode. Pictures mean
nothing; the time does not depend on them. Depths are the simulator's: no estimator is timed.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from mirage_sim.evaluation.full_size import Shape, cache, true_depths
from mirage_sim.geometry import make_intrinsics
from mirage_sim.memory import MemoryConfig, SpatialMemory
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.condition import build_condition
from mirage_sim.model.full_size import PRECEDING, PROMPT, PUBLISHED_SAMPLER, REFERENCES, full_size_memory
from mirage_sim.model.generator import Generator, GeneratorConfig, empty_generator
from mirage_sim.model.sampler import SamplerConfig, sample, start_fraction
from mirage_sim.model.world_model import stays_float32
from mirage_sim.scenes import Scene
from mirage_sim.world.clock import Clock


def loaded_shape(config: GeneratorConfig) -> Generator:
    """Build a generator without values in the types in which it is loaded: norms in 32 bit, else bfloat16.

    Args:
        config: Its shape.

    Returns:
        The generator, for inference.
    """
    generator = empty_generator(config)
    for name, parameter in generator.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if stays_float32(name) else torch.bfloat16)
    return generator.requires_grad_(False).eval()


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


@torch.no_grad()
def whole_chunks(
    scene: Scene,
    way: Tensor,  # [chunks * latent_frames + 1, 4, 4]
    generator: Generator,
    codec: WanCodec,
    shape: Shape | None = None,
    sampler: SamplerConfig = PUBLISHED_SAMPLER,
    seed: int = 0,
) -> Iterator[dict[str, float]]:
    """Time whole chunks.

    Args:
        scene: Tells the depths.
        way: Cameras of the latent frames.
        generator: Denoises; its device is where all happens.
        codec: Decodes, on the same device.
        shape: Of a chunk.
        sampler: How latents are drawn.
        seed: Of first frame and noise.

    Yields:
        Seconds a frame: `condition`, `generate`, `update`, `show`, `total`; `cache_mib`, `entries` and
        `peak_mib`, the most memory of the GPU so far (0 on a CPU).
    """
    shape = shape if shape is not None else Shape()
    device = next(generator.parameters()).device
    stride, channels, length = codec.spatial_stride, codec.channels, shape.latent_frames
    cells = (shape.height // stride, shape.width // stride)
    lens = make_intrinsics(*cells, shape.fov_x_deg)
    memory = SpatialMemory(full_size_memory(channels), 1, device)
    noise = torch.Generator().manual_seed(seed)

    def draw(frames: int) -> Tensor:
        return torch.randn(1, frames, channels, *cells, generator=noise).to(device)

    def write(latents: Tensor, cameras: Tensor, depth: Tensor) -> None:
        lenses = lens.to(device).expand(1, len(cameras), 3, 3)
        memory.write(latents, depth.to(device), cameras[None].to(device), lenses)

    def depths(cameras: Tensor) -> Tensor:
        depth = true_depths(scene, cameras, lens, cells, 1, 1)
        return torch.where(depth > 0, depth, MemoryConfig.sky_depth)

    made = draw(1).expand(1, 1 + PRECEDING, channels, *cells)
    write(made[:, -1:], way[:1], depths(way[:1]))
    prompt = torch.randn(1, PROMPT, generator.config.context_dim, generator=noise).to(device)
    for first in range(1, len(way), length):
        cameras = way[first - 1 : first + length]  # the last one made, and those to come
        depth, start, references = depths(cameras[1:]), draw(1 + length), draw(REFERENCES)
        clock = Clock(device)
        lenses = lens.to(device).expand(1, len(cameras), 3, 3)
        read = memory.read(cameras[None].to(device), lenses, cells)
        condition = build_condition(read)
        clock.lap("condition")
        fraction = start_fraction(read, sampler.known_fraction)
        fraction[:, 0], start[:, 0] = 0.0, made[:, -1]  # the last one made stays as it is
        velocity = partial(
            generator,
            context=prompt,
            preceding=made[:, -1 - PRECEDING : -1],
            references=references,
            condition=condition,
        )
        latents = sample(velocity, start, fraction, generator.config.patch_hw, sampler)[:, 1:]
        clock.lap("generate")
        write(latents, cameras[1:], depth)
        clock.lap("update")
        codec.decode(latents, made[:, -1:])
        clock.lap("show")
        made = torch.cat([made, latents], dim=1)[:, -1 - PRECEDING :]
        parts = {name: ms / 1000.0 / shape.frames for name, ms in clock.laps.items()}
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
        yield parts | {"total": sum(parts.values()), "peak_mib": peak} | cache(memory.stats())
