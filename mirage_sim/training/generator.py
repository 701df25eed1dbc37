"""Stages 3 to 6: backbone (image to video), memory branch (backbone frozen), LoRA (with branch), finetune.

All of them minimise the same flow-matching loss; they differ in what is trained and in what is seen.

Source: paper, section on training (two stages after the backbone); flows that start at the memory are ours.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.memory import MemoryRead
from mirage_sim.model.condition import build_condition, motion_context
from mirage_sim.model.lora import LoRAConfig, add_lora, has_lora, merge_lora
from mirage_sim.model.sampler import flow_start, shift_sigma, spread_over_cells, start_fraction
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.loop import BatchLoss, StageConfig, run_stage
from mirage_sim.training.samples import LatentClips, Sample, SamplesConfig, draw_sample

STAGES = ("backbone", "branch", "lora", "finetune")
SIGMA_SHIFT = 2.0  # training sees high noise levels more often, where the large shapes are decided
FROM_NOISE = 0.1  # share of samples whose known tokens start at noise, too
NO_EXTRAS = 0.1  # share of batches that are told only latents and mask, so that extras can be switched off
VALIDATION_BATCHES = 6


@dataclass(frozen=True)
class Task:
    """What the generator is asked, and the answer.

    Attributes:
        target: Clean latents, [B, 1, C, h, w].
        start: Where the flow starts, likewise.
        fraction: Share of noise in the start of every token, [B, 1, h', w'].
        context: Camera motion, up and height, [B, 1, D].
        preceding: Latents before, [B, 1, C, h, w], or `None`.
        references: Earlier views [B, R, C, h, w], or `None`.
        condition: What the branch sees, or `None` for the backbone alone.
    """

    target: Tensor
    start: Tensor
    fraction: Tensor
    context: Tensor
    preceding: Tensor | None
    references: Tensor | None
    condition: Tensor | None


def make_task(
    model: WorldModel,
    sample: Sample,
    rng: np.random.Generator,
    memory: bool = True,
    from_noise: float = FROM_NOISE,
) -> Task:
    """Lay a sample out for the generator.

    Args:
        model: Settings and device.
        sample: The batch.
        rng: Source of all chance.
        memory: Whether the branch sees the memory; without, the backbone stands alone.
        from_noise: Share of samples whose known tokens start at noise, too.

    Returns:
        The task, on the model's device.
    """
    device = model.device
    settings = model.config
    patch = settings.generator.patch_hw
    chance = torch.Generator().manual_seed(int(rng.integers(2**62)))
    target = sample.target.to(device)
    noise = torch.randn(target.shape, generator=chance).to(device)
    read = MemoryRead(**{name: value.to(device) for name, value in vars(sample.read).items()})
    fraction = start_fraction(read, patch, settings.sampler.known_fraction)  # [B, 1, h', w']
    whole = torch.rand(len(target), 1, 1, 1, generator=chance).to(device) < (from_noise if memory else 1.0)
    fraction = torch.where(whole, 1.0, fraction)
    told = settings.extras and rng.random() >= NO_EXTRAS
    return Task(
        target=target,
        start=flow_start(read.latents, noise, fraction, patch),
        fraction=fraction,
        context=motion_context(sample.pose, sample.preceding_pose, settings.generator.context_dim).to(device),
        preceding=sample.preceding.to(device) if sample.preceding is not None else None,
        references=sample.references.to(device) if sample.references is not None and memory else None,
        condition=build_condition(read, told) if memory else None,
    )


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
        Squared error per cell, [B, 1, h, w]; 0 for tokens that stay as they were read, which are no task.
    """
    task = make_task(model, sample, rng, memory)
    level = rng.random((len(task.target), 1, 1, 1), dtype=np.float32)
    sigma = shift_sigma(torch.from_numpy(level), SIGMA_SHIFT).to(model.device)
    moves = spread_over_cells((task.fraction > 0).float(), model.config.generator.patch_hw)  # [B, 1, 1, h, w]
    on_the_way = torch.lerp(task.start, task.target, (1.0 - sigma[:, None]) * moves)
    velocity = module(
        on_the_way, sigma * task.fraction, task.context, task.preceding, task.references, task.condition
    )
    error: Tensor = (velocity - (task.start - task.target)).square().mean(dim=2) * moves[:, :, 0]
    return error


def prepare_stage(model: WorldModel, stage: str, lora: LoRAConfig | None = None) -> None:
    """Freeze and free what the stage asks for.

    Args:
        model: Changed in place.
        stage: "backbone", "branch", "lora" or "finetune".
        lora: Size of the adapters.

    Raises:
        InputError: If the stage is unknown.
    """
    if stage not in STAGES:
        raise InputError(f"stage must be one of {STAGES}, got {stage!r}")
    generator = model.generator
    model.requires_grad_(False)
    if stage == "finetune":
        generator.requires_grad_(True)
        return
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
        stage: "backbone", "branch", "lora" or "finetune".
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
    if not memory:
        drawn = replace(drawn, memory_dropout=1.0)

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
        figures = {"validation_known": known, "validation_unknown": unknown}
        return {
            name: float(torch.cat(errors).mean()) for name, errors in figures.items() if any(map(len, errors))
        }

    run_stage(stage, model.generator, batch_loss, config, out, validate)
    if stage == "lora":
        merge_lora(model.generator)
    model.requires_grad_(False)
