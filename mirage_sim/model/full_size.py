"""Full size: settings of a Wan2.2-TI2V-5B world model, as published where the paper tells them.

Source: paper, sections on sequence, sampling and memory; 8-bit tokens in memory are ours.
"""

from __future__ import annotations

from typing import Any

import torch

from mirage_sim.memory import MemoryConfig
from mirage_sim.model.config import (
    CHUNK,
    PRECEDING,
    PROMPT,
    REFERENCES,
    STEPS,
    GeneratorConfig,
    SamplerConfig,
)
from mirage_sim.model.generator import Generator, empty_generator
from mirage_sim.model.world_model import WorldModelConfig, stays_float32

PUBLISHED_SAMPLER = SamplerConfig(
    steps=STEPS, shift=5.0, scheduler="unipc", known_fraction=1.0, refine_steps=0
)


def full_size_memory(channels: int) -> MemoryConfig:
    """Settings of the latent memory at full size: tokens in 8 bit."""
    return MemoryConfig(channels=channels, dtype="float8", glimpses=0)


def full_size_config(generator: GeneratorConfig, **settings: Any) -> WorldModelConfig:
    """Settings of a full-size world model.

    Args:
        generator: Its shape.
        settings: Fields of `WorldModelConfig` that are to differ.

    Returns:
        The config.

    Raises:
        InputError: If settings do not fit.
        TypeError: If a setting is unknown.
    """
    published: dict[str, Any] = {
        "model_id": "full-size",
        "height": 704,
        "width": 1280,
        "segment_length": CHUNK,
        "preceding": PRECEDING,
        "preceding_with_memory": True,
        "overlap": 1,
        "hint_preceding": True,
        "prompt_tokens": PROMPT,
        "references": REFERENCES,
        "sampler": PUBLISHED_SAMPLER,
        "memory": full_size_memory(generator.channels),
    }
    parts = {"codec": None, "depth_head": None, "resampler": None, "refiner": None}
    return WorldModelConfig(generator=generator, **{**published, **parts, **settings})


def loaded_shape(config: GeneratorConfig, dtype: torch.dtype = torch.bfloat16) -> Generator:
    """Build a generator without values in the types in which it is loaded: norms in 32 bit.

    Args:
        config: Its shape.
        dtype: Of the rest.

    Returns:
        The generator, for inference.
    """
    generator = empty_generator(config)
    for name, parameter in generator.named_parameters():
        parameter.data = parameter.data.to(torch.float32 if stays_float32(name) else dtype)
    return generator.requires_grad_(False).eval()
