"""Stage 3: the resampler learns to draw what the memory knows for the present view.

What it draws is kept and stands for a share of the frames from which later samples are read, as on a walk
where a place is written anew from nearer again and again. (After an interruption this begins with the truth.)
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirage_sim.errors import StateError
from mirage_sim.memory import MemoryRead
from mirage_sim.model.condition import build_condition
from mirage_sim.model.resampler import is_exact
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.loop import VALIDATION_BATCHES, BatchLoss, cell_error, run_stage
from mirage_sim.training.precision import mixed_precision
from mirage_sim.training.samples import NO_EXTRAS, LatentClips, Sample, SamplesConfig, draw_sample


def known_error(drawn: Tensor, target: Tensor, read: MemoryRead) -> Tensor:
    """Mean squared error over the cells that the memory knows, but not exactly.

    Args:
        drawn: What was drawn, [B, 1, C, h, w].
        target: The truth, likewise.
        read: What the memory holds.

    Returns:
        Scalar.
    """
    cells = (read.mask & ~is_exact(read))[:, :, None].float()
    return cell_error(drawn, target, cells)


def keep_drawn(clips: LatentClips, sample: Sample, drawn: Tensor) -> None:
    """Keep what was drawn of known cells among the redrawn latents of the clips."""
    if clips.redrawn is None:
        raise StateError("clips must have a place for redrawn latents")
    clips.redrawn[sample.place] = torch.where(sample.read.mask[:, :, None], drawn, sample.target)[:, 0].half()


def train_resample(
    model: WorldModel, clips: LatentClips, held_out: LatentClips, config: StageConfig, out: Path
) -> None:
    """Train the resampler in place.

    Args:
        model: World model whose codec is trained.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
    """
    samples = replace(SamplesConfig(), memory_dropout=0.0)
    clips = replace(clips, redrawn=clips.latents.clone())

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            sample = draw_sample(clips, config.batch_size, samples, rng)
            told = model.config.extras and rng.random() >= NO_EXTRAS
            drawn = module(build_condition(sample.read, told))
            keep_drawn(clips, sample, drawn.detach())
            return known_error(drawn, sample.target, sample.read)

        return loss

    def validate(module: nn.Module) -> dict[str, float]:
        errors = []
        for index in range(VALIDATION_BATCHES):
            sample = draw_sample(held_out, config.batch_size, samples, np.random.default_rng([7, index]))
            with mixed_precision(model.device):
                drawn = module(build_condition(sample.read, model.config.extras))
            found = (
                known_error(latents, sample.target, sample.read) for latents in (drawn, sample.read.latents)
            )
            errors.append([float(error) for error in found])
        drawn_error, read_error = np.mean(errors, axis=0)
        return {"validation_known": float(drawn_error), "validation_as_read": float(read_error)}

    model.requires_grad_(False)
    model.resampler.requires_grad_(True)
    run_stage("resample", model.resampler, batch_loss, config, out, validate)
    model.requires_grad_(False)
