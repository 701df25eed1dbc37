"""Stages 4 to 7: backbone (image to video), memory branch (backbone frozen), LoRA (with branch), finetune.

Without the stage "branch" before it, "lora" trains branch and adapters in one stage.

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
from mirage_sim.model.condition import build_condition, motion_context
from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.lora import add_lora, has_lora, merge_lora
from mirage_sim.model.sampler import flow_start, pool_tokens, shift_sigma, start_fraction
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.loop import VALIDATION_BATCHES, BatchLoss, cell_error, run_stage
from mirage_sim.training.precision import mixed_precision
from mirage_sim.training.samples import NO_EXTRAS, LatentClips, Sample, SamplesConfig, draw_sample

STAGES = ("backbone", "branch", "lora", "finetune")
SIGMA_SHIFT = 2.0  # training sees high noise levels more often, where the large shapes are decided
FROM_NOISE = 0.1  # share of samples whose known cells start at noise, too


@dataclass(frozen=True)
class Task:
    """What the generator is asked, and the answer.

    Attributes:
        target: Clean latents, [B, 1, C, h, w].
        start: Where the flow starts, likewise.
        fraction: Share of noise in the start of every cell, [B, 1, h, w].
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

    @property
    def imagined(self) -> Tensor:
        """1 in cells of which nothing is known, else 0; float32 [B, 1, 1, h, w]."""
        return (self.fraction == 1).float()[:, :, None]


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
        sample: The batch, on the model's device.
        rng: Source of all chance.
        memory: Whether the branch sees the memory; without, the backbone stands alone.
        from_noise: Share of samples whose known cells start at noise, too.

    Returns:
        The task.
    """
    device = sample.target.device
    settings = model.config
    chance = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    target, read = sample.target, sample.read
    noise = torch.randn(target.shape, generator=chance, device=device)
    fraction = start_fraction(read, settings.sampler.known_fraction)  # [B, 1, h, w]
    share = from_noise if memory else 1.0
    whole = torch.rand(len(target), 1, 1, 1, generator=chance, device=device) < share
    fraction = torch.where(whole, 1.0, fraction)
    told = settings.extras and rng.random() >= NO_EXTRAS
    condition = build_condition(read, told)
    with torch.no_grad():
        carried = model.resampler.carry(read, condition)
    return Task(
        target=target,
        start=flow_start(carried, noise, fraction),
        fraction=fraction,
        context=motion_context(sample.pose, sample.preceding_pose, settings.generator.context_dim),
        preceding=sample.preceding,
        references=sample.references if memory else None,
        condition=condition if memory else None,
    )


def flow_loss(
    model: WorldModel,
    module: nn.Module,
    sample: Sample,
    rng: np.random.Generator,
    memory: bool,
    from_noise: float = FROM_NOISE,
) -> Tensor:
    """Squared error of the velocity on the way from the flow's start to the target.

    Args:
        model: Settings.
        module: The generator, perhaps wrapped for several processes.
        sample: The batch.
        rng: Source of all chance.
        memory: Whether the branch sees the memory; without, the backbone stands alone.
        from_noise: Share of samples whose known cells start at noise, too.

    Returns:
        Scalar, the mean over all cells that do not stay as they are.
    """
    task = make_task(model, sample, rng, memory, from_noise)
    level = rng.random((len(task.target), 1, 1, 1), dtype=np.float32)
    sigma = shift_sigma(torch.from_numpy(level), SIGMA_SHIFT).to(model.device)
    moves = (task.fraction > 0).float()[:, :, None]  # [B, 1, 1, h, w]
    tokens = pool_tokens(task.fraction, model.config.generator.patch_hw)
    on_the_way = torch.lerp(task.start, task.target, (1.0 - sigma[:, None]) * moves)
    velocity = module(
        on_the_way, sigma * tokens, task.context, task.preceding, task.references, task.condition
    )
    return cell_error(velocity, task.start - task.target, moves)


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
    if stage == "branch" or not bool(next(generator.branch.after_proj.parameters()).any()):
        generator.branch.start_from(generator.backbone)  # nothing has been learnt there yet
    if stage == "lora" and not has_lora(generator):
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
        def loss(rng: np.random.Generator) -> Tensor:
            sample = draw_sample(clips, config.batch_size, drawn, rng)
            return flow_loss(model, module, sample, rng, memory)

        return loss

    def validate(module: nn.Module) -> dict[str, float]:
        errors = []
        for index in range(VALIDATION_BATCHES):
            rng = np.random.default_rng([7, index])
            sample = draw_sample(held_out, config.batch_size, drawn, rng)
            with mixed_precision(model.device):
                errors.append(float(flow_loss(model, module, sample, rng, memory, from_noise=0.0)))
        return {"validation_unknown": float(np.mean(errors))}

    run_stage(stage, model.generator, batch_loss, config, out, validate)
    if stage == "lora":
        merge_lora(model.generator)
    model.requires_grad_(False)
