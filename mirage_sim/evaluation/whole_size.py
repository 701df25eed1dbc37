"""Whole size: a chunk at 704x1280 with all that the method does, on a GPU, with random weights.

Read, condition, denoise with the 5B-shaped backbone and its memory branch, write, decode. Pictures mean
nothing; the time does not depend on them. Depths are the simulator's: no estimator is timed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from mirage_sim.evaluation.full_size import Shape, cache, true_depths
from mirage_sim.geometry import make_intrinsics
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.full_size import PUBLISHED_SAMPLER, full_size_config
from mirage_sim.model.generator import Generator, GeneratorConfig, empty_generator
from mirage_sim.model.sampler import SamplerConfig
from mirage_sim.model.world_model import WorldModel, stays_float32
from mirage_sim.perception import Perceived, Seen
from mirage_sim.scenes import Scene
from mirage_sim.world import World


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


class KnownDepths:
    """A `DepthEstimator` that tells depths it was given, in place of one that looks."""

    needs_frames = False

    def __init__(self) -> None:
        """Wait for depths."""
        self.depth = torch.empty(0)  # [N, h, w] in metres, 0 for the sky

    def estimate(self, seen: Seen) -> Perceived:
        """Tell the depths of N views."""
        depth = self.depth.to(seen.latents.device)
        return Perceived(depth, depth > 0, depth > 0)


def whole_chunks(
    scene: Scene,
    way: Tensor,  # [chunks * latent_frames + 1, 4, 4]
    generator: Generator,
    codec: WanCodec,
    shape: Shape | None = None,
    sampler: SamplerConfig = PUBLISHED_SAMPLER,
    seed: int = 0,
) -> Iterator[dict[str, float]]:
    """Time whole chunks of a world.

    Args:
        scene: Tells the depths.
        way: Cameras of the latent frames.
        generator: Denoises; its device is where all happens.
        codec: Encodes and decodes, on the same device.
        shape: Of a chunk.
        sampler: How latents are drawn.
        seed: Of first frame and noise.

    Yields:
        Seconds a frame: `condition`, `generate`, `update`, `show`, `total`; `cache_mib`, `entries` and
        `peak_mib`, the most memory of the GPU so far (0 on a CPU).
    """
    shape = shape if shape is not None else Shape()
    sizes = {"height": shape.height, "width": shape.width, "segment_length": shape.latent_frames}
    config = full_size_config(generator.config, **sizes, fov_x_deg=shape.fov_x_deg, sampler=sampler)
    depths = KnownDepths()
    model = WorldModel(config, codec, generator, depths)
    world, cells = World(model), model.latent_hw
    lens = make_intrinsics(*cells, shape.fov_x_deg)

    def look(cameras: Tensor) -> Tensor:
        depths.depth = true_depths(scene, cameras, lens, cells, 1, 1)[0]
        return cameras[None]

    size = (1, shape.height, shape.width, 3)
    picture = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    world.reset(picture, look(way[:1])[:, 0], seeds=[seed])
    for first in range(1, len(way), shape.latent_frames):
        told = world.step(look(way[first : first + shape.latent_frames])).timings_ms
        laps = {
            "condition": told["read"],
            "generate": told["generate"],
            "update": told["depth"] + told["write"],
            "show": told["decode"],
        }
        parts = {name: ms / 1000.0 / shape.frames for name, ms in laps.items()}
        device = model.device
        peak = torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0
        yield parts | {"total": sum(parts.values()), "peak_mib": peak} | cache(world.memory.stats())
