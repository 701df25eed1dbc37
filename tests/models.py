"""Tiny world models of the real classes, with random weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch

from mirage_sim.memory import MemoryConfig
from mirage_sim.model.codec import EmbeddedCodecConfig
from mirage_sim.model.condition import condition_channels
from mirage_sim.model.depth_head import DepthHeadConfig
from mirage_sim.model.generator import GeneratorConfig
from mirage_sim.model.refiner import RefinerConfig
from mirage_sim.model.resampler import ResamplerConfig
from mirage_sim.model.world_model import WorldModel, WorldModelConfig


def tiny_world_model(height: int = 32, width: int = 32, seed: int = 0, **settings: object) -> WorldModel:
    """Build a world model of a few thousand weights; hints, resampling and refining change something."""
    channels = 4
    config = WorldModelConfig(
        model_id="tiny",
        height=height,
        width=width,
        codec=EmbeddedCodecConfig(channels, (8, 8, 16, 16), (8, 8, 16, 16), (0, 1, 1, 1), (0, 1, 1, 1)),
        generator=GeneratorConfig(channels, condition_channels(channels), 2, 12, 2, 32, 16, (1, 2, 2), 2),
        depth_head=DepthHeadConfig(channels, 8, 1),
        resampler=ResamplerConfig(channels, 8, 1),
        refiner=RefinerConfig(channels, (8, 8), 1),
        memory=MemoryConfig(channels=channels, initial_capacity=64),
        max_depth_spread=100.0,
        **settings,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = WorldModel(config)
        for project in model.generator.branch.after_proj:
            torch.nn.init.normal_(project.weight, std=0.1)
        torch.nn.init.normal_(model.resampler.last.weight, std=0.1)
        torch.nn.init.normal_(model.refiner.last.weight, std=0.1)
    return model.requires_grad_(False).eval()


def save_tiny_world_model(folder: Path, **settings: object) -> Path:
    """Save a tiny world model and return its folder."""
    tiny_world_model(**settings).save(folder)
    return folder
