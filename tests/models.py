"""Tiny world models of the real classes, with random weights, for tests."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import AutoencoderKLWan, WanTransformer3DModel

from mirage_sim.memory import MemoryConfig
from mirage_sim.model.autoencoder import EmbeddedCodecConfig
from mirage_sim.model.config import GeneratorConfig, condition_channels
from mirage_sim.model.depth_head import DepthHeadConfig
from mirage_sim.model.generator import Generator
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


def wan_transformer(config: GeneratorConfig) -> WanTransformer3DModel:
    """diffusers' own backbone of this shape, with random weights."""
    return WanTransformer3DModel(
        patch_size=config.patch_size,
        num_attention_heads=config.heads,
        attention_head_dim=config.head_dim,
        in_channels=config.channels,
        out_channels=config.channels,
        text_dim=config.context_dim,
        ffn_dim=config.ffn_dim,
        num_layers=config.layers,
    )


def save_backbone(generator: Generator, folder: Path, **settings: object) -> None:
    """Save a generator's backbone as diffusers does."""
    with torch.random.fork_rng():
        published = wan_transformer(generator.config)
    published.load_state_dict(generator.backbone.state_dict())
    published.to(next(generator.backbone.parameters()).dtype).save_pretrained(folder, **settings)


def wan21_autoencoder() -> AutoencoderKLWan:
    """Wan2.1's kind of autoencoder, a few channels wide: 8x in space, 4x in time."""
    return AutoencoderKLWan(
        base_dim=4,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[2.0, 1.0, 0.5, 1.0],
    )


def wan22_autoencoder(
    base_dim: int, decoder_base_dim: int, halves: list[bool], mean: list[float], std: list[float]
) -> AutoencoderKLWan:
    """Wan2.2's kind of autoencoder, with three levels of one block: 8x in space, 2x in time a `True`."""
    return AutoencoderKLWan(
        base_dim=base_dim,
        decoder_base_dim=decoder_base_dim,
        z_dim=len(mean),
        dim_mult=[1, 2, 2],
        num_res_blocks=1,
        temperal_downsample=halves,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=2 ** sum(halves),
        scale_factor_spatial=8,
        latents_mean=mean,
        latents_std=std,
    )


def save_tiny_world_model(folder: Path, **settings: object) -> Path:
    """Save a tiny world model and return its folder."""
    tiny_world_model(**settings).save(folder)
    return folder
