"""Stage 2: the depth head learns depth at latent resolution from (disturbed) latents and remembered depth."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirage_sim.geometry import ray_directions
from mirage_sim.model.depth_head import depth_geometry, depth_loss
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.loop import BatchLoss, run_stage
from mirage_sim.training.samples import LatentClips, Sample, SamplesConfig, draw_sample

LATENT_NOISE = 0.2  # largest standard deviation of the noise on the latents that the head sees
NO_MEMORY = 0.4  # share of batches without remembered depth, as at the start of a world


def head_inputs(sample: Sample, intrinsics: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Latents [B, C, h, w] and geometry [B, 6, h, w] of a batch's targets.

    Args:
        sample: The batch.
        intrinsics: [3, 3] in cells.
        noise: Added to the latents, [B, C, h, w].

    Returns:
        What `DepthHead.forward` takes.
    """
    latents = sample.target[:, 0] + noise
    rays = ray_directions(sample.pose[:, 0], intrinsics, (latents.shape[-2], latents.shape[-1]))
    height = sample.pose[:, 0, 2, 3]
    return latents, depth_geometry(sample.read.depth[:, 0], sample.read.mask[:, 0], rays, height)


def train_depth(
    model: WorldModel, clips: LatentClips, held_out: LatentClips, config: StageConfig, out: Path
) -> None:
    """Train the depth head in place.

    Args:
        model: World model whose codec is trained.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
    """
    samples = replace(SamplesConfig(), memory_dropout=NO_MEMORY, sky_depth=0.0)  # the sky tells no depth
    device = clips.latents.device

    def predict(module: nn.Module, sample: Sample, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
        shape = sample.target[:, 0].shape
        level = LATENT_NOISE * rng.random((shape[0], 1, 1, 1), dtype=np.float32)
        noise = torch.from_numpy(level * rng.standard_normal(tuple(shape), dtype=np.float32)).to(device)
        said: tuple[Tensor, Tensor, Tensor] = module(*head_inputs(sample, clips.intrinsics, noise))
        return said

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            sample = draw_sample(clips, config.batch_size, samples, rng)
            return depth_loss(predict(module, sample, rng), sample.depth[:, 0])

        return loss

    def validate(module: nn.Module) -> dict[str, float]:
        figures = {}
        for name, share in (("with_memory", 0.0), ("alone", 1.0)):
            rng = np.random.default_rng(7)
            sample = draw_sample(held_out, 64, replace(samples, memory_dropout=share), rng)
            log_depth = predict(module, sample, rng)[0]
            truth = sample.depth[:, 0]
            relative = ((log_depth.exp() - truth).abs() / truth.clamp(min=0.05))[truth > 0]
            figures[f"validation_{name}"] = float(relative.median())
        return figures

    model.requires_grad_(False)
    model.depth_head.requires_grad_(True)
    run_stage("depth", model.depth_head, batch_loss, config, out, validate)
    model.requires_grad_(False)
