"""Stages 3 to 5: backbone (image to video), memory branch (backbone frozen), LoRA (with the branch).

All three minimise the same flow-matching loss; they differ in what is trained and in what is seen.

Source: paper, section on training (two stages after the backbone); flows that start at the memory are ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.model.condition import build_condition, motion_context
from mirage_sim.model.lora import LoRAConfig, add_lora, has_lora, merge_lora
from mirage_sim.model.sampler import flow_start, patch_fraction, shift_sigma
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.loop import BatchLoss, StageConfig, run_stage
from mirage_sim.training.samples import LatentClips, Sample, SamplesConfig, draw_sample

STAGES = ("backbone", "branch", "lora")
SIGMA_SHIFT = 2.0  # training sees high noise levels more often, where the large shapes are decided
FROM_NOISE = 0.25  # share of samples whose known tokens start at noise, too
VALIDATION_BATCHES = 6


def flow_loss(
    model: WorldModel, module: nn.Module, sample: Sample, rng: np.random.Generator, memory: bool
) -> Tensor:
    """Squared error of the velocity on the way from the flow's start to the target.

    Args:
        model: Settings.
        module: The generator, perhaps wrapped for several processes.
        sample: The batch.
        rng: Source of all chance.
        memory: Whether the branch sees the memory; without, the backbone stands alone.

    Returns:
        Squared error per cell, [B, 1, h, w].
    """
    device = model.device
    settings = model.config
    patch = (settings.generator.patch_size[1], settings.generator.patch_size[2])
    chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
    target = sample.target.to(device)
    noise = torch.randn(target.shape, generator=chance).to(device)
    mask = sample.read.mask.to(device) & memory
    fraction = patch_fraction(mask, patch, settings.sampler.known_fraction)  # [B, 1, h', w']
    whole = torch.rand(len(target), 1, 1, 1, generator=chance).to(device) < FROM_NOISE
    fraction = torch.where(whole, 1.0, fraction)
    start = flow_start(sample.read.latents.to(device), noise, fraction, patch)
    sigma = shift_sigma(torch.rand(len(target), 1, 1, 1, generator=chance), SIGMA_SHIFT).to(device)
    on_the_way = (1.0 - sigma[:, None]) * target + sigma[:, None] * start
    read = type(sample.read)(**{name: value.to(device) for name, value in vars(sample.read).items()})
    references = sample.references.to(device) if sample.references is not None and memory else None
    velocity = module(
        on_the_way,
        sigma * fraction,
        motion_context(sample.pose, sample.preceding_pose, settings.generator.context_dim).to(device),
        sample.preceding.to(device),
        references,
        build_condition(read, settings.extras) if memory else None,
    )
    error: Tensor = (velocity - (start - target)).square().mean(dim=2)
    return error


def prepare_stage(model: WorldModel, stage: str, lora: LoRAConfig | None = None) -> None:
    """Freeze and free what the stage asks for.

    Args:
        model: Changed in place.
        stage: "backbone", "branch" or "lora".
        lora: Size of the adapters.

    Raises:
        InputError: If the stage is unknown.
    """
    if stage not in STAGES:
        raise InputError(f"stage must be one of {STAGES}, got {stage!r}")
    generator = model.generator
    model.requires_grad_(False)
    if stage == "backbone":
        generator.backbone.requires_grad_(True)
        return
    if stage == "branch":
        generator.branch.start_from(generator.backbone)
    elif not has_lora(generator):
        add_lora(generator, lora)
    generator.branch.requires_grad_(True)


def train_generator(
    stage: str,
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None = None,
    lora: LoRAConfig | None = None,
) -> None:
    """Train one stage of the generator in place; after "lora" the adapters are merged.

    Args:
        stage: "backbone", "branch" or "lora".
        model: World model whose earlier stages are trained.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        samples: How samples are drawn.
        lora: Size of the adapters.
    """
    drawn = samples if samples is not None else SamplesConfig()
    prepare_stage(model, stage, lora)
    memory = stage != "backbone"

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> tuple[Tensor, dict[str, float]]:
            sample = draw_sample(clips, config.batch_size, drawn, rng)
            error = flow_loss(model, module, sample, rng, memory)
            return error.mean(), {}

        return loss

    def validate(module: nn.Module) -> dict[str, float]:
        known, unknown = [], []
        for index in range(VALIDATION_BATCHES):
            rng = np.random.default_rng([7, index])
            sample = draw_sample(held_out, config.batch_size, drawn, rng)
            with torch.autocast(model.device.type, dtype=torch.bfloat16):
                error = flow_loss(model, module, sample, rng, memory).float().cpu()
            known.append(error[sample.read.mask])
            unknown.append(error[~sample.read.mask])
        return {
            "validation_known": float(torch.cat(known).mean()),
            "validation_unknown": float(torch.cat(unknown).mean()),
        }

    run_stage(stage, model.generator, batch_loss, config, out, validate)
    if stage == "lora":
        merge_lora(model.generator)
    model.requires_grad_(False)
