"""Baselines: each learns its own parts for what its memory tells.

Where something is read, these are the resampler and the memory branch. Reading another memory costs more
than a step of training (colour points are decoded, drawn and encoded), so samples are drawn in rounds and
picked from many times. In later rounds a share of the remembered frames are as the resampler of the round
before drew them, as on a walk where a place is written anew from nearer. Where frames are shown as
references, adapters of the backbone are trained.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.baselines.memories import VOXELS, make_memory
from mirage_sim.baselines.weights import save_baseline, shared_digest, with_own_parts
from mirage_sim.memory import MemoryRead
from mirage_sim.model.condition import build_condition
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.generator import flow_loss
from mirage_sim.training.loop import BatchLoss, run_stage
from mirage_sim.training.precision import mixed_precision
from mirage_sim.training.resample import keep_drawn, known_error
from mirage_sim.training.samples import LatentClips, Reader, Sample, SamplesConfig, draw_sample

ROUNDS = 2
POOL = 160  # batches of a round
VALIDATION_BATCHES = 4
BRANCH_SHARE = 0.25  # of the steps go to the branch, the rest to the resampler
SHOWN = SamplesConfig(memory_dropout=1.0, reference_share=0.9, reference_alone=True, revisit=0.5)
Pool = Callable[[], list[Sample]]


def reader_of(name: str, model: WorldModel) -> Reader:
    """Write stored frames into a memory and read it, as `read_frames` does for the latent memory."""
    settings = replace(model.config.memory, dtype="float32")

    def read(latents: Tensor, depth: Tensor, poses: Tensor, target: Tensor, intrinsics: Tensor) -> MemoryRead:
        memory = make_memory(name, model.codec, settings, len(latents), model.device)
        lens = intrinsics.expand(*poses.shape[:2], 3, 3)
        frames = model.codec.decode(latents) if memory.wants_frames else None
        memory.write(latents, depth, poses, lens, frames=frames)
        return memory.read(target, lens[:, :1], (latents.shape[-2], latents.shape[-1]))

    return read


@torch.no_grad()
def draw_pool(
    kind: str, model: WorldModel, clips: LatentClips, batches: int, batch_size: int, seed: Sequence[int]
) -> list[Sample]:
    """Draw samples through a baseline's memory; what its resampler makes of them is kept among the clips.

    Args:
        kind: One of `KINDS`.
        model: With the baseline's own parts.
        clips: Encoded clips; `redrawn` is updated where there is one.
        batches: How many.
        batch_size: Samples in each.
        seed: Seeds every batch.

    Returns:
        The batches, latents in 16 bit.
    """
    samples = replace(SamplesConfig(), memory_dropout=0.0, reference_share=0.0)
    names = list(VOXELS) if kind == "colours" else [kind]  # batches take them in turn
    pool = []
    for index in tqdm(range(batches), desc=f"read {kind}", mininterval=5.0):
        reader = reader_of(names[index % len(names)], model)
        with mixed_precision(model.device):
            sample = draw_sample(clips, batch_size, samples, np.random.default_rng([*seed, index]), reader)
            if clips.redrawn is not None:
                drawn = model.resampler(build_condition(sample.read, model.config.extras))
                keep_drawn(clips, sample, drawn)
        read = replace(sample.read, latents=sample.read.latents.half())
        pool.append(replace(sample, target=sample.target.half(), read=read))
    return pool


def train_baseline(
    kind: str,
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
) -> Path:
    """Train a baseline's own parts beside a model that stays as it is.

    Args:
        kind: One of `KINDS`.
        model: Trained world model.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length (of all parts together) and rate.
        out: Folder of the run; receives `baselines/<kind>.safetensors`.

    Returns:
        That file.

    Raises:
        InputError: If the kind is unknown.
    """
    own = with_own_parts(model, kind)
    train = _train_references if kind == "retrieved" else _train_reading
    train(kind, own, clips, held_out, config, out)
    path = out / "baselines" / f"{kind}.safetensors"
    save_baseline(own, kind, shared_digest(model), path)
    return path


def _train_references(
    kind: str, model: WorldModel, clips: LatentClips, held_out: LatentClips, config: StageConfig, out: Path
) -> None:
    """Adapt the backbone to references without anything that is read; half of them show the target itself."""
    model.requires_grad_(False)
    for name, parameter in model.generator.backbone.named_parameters():
        parameter.requires_grad_("lora_" in name)

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            sample = draw_sample(clips, config.batch_size, SHOWN, rng)
            return flow_loss(model, module, sample, rng, memory=True, from_noise=0.0)

        return loss

    def validate(module: nn.Module) -> dict[str, float]:
        rngs = [np.random.default_rng([7, index]) for index in range(VALIDATION_BATCHES)]
        given = [draw_sample(held_out, config.batch_size, SHOWN, rng) for rng in rngs]
        return _unknown_error(model, module, given)

    run_stage(f"{kind}-lora", model.generator, batch_loss, config, out, validate)
    model.requires_grad_(False)


def _train_reading(
    kind: str, model: WorldModel, clips: LatentClips, held_out: LatentClips, config: StageConfig, out: Path
) -> None:
    """Train the resampler, in rounds, then the memory branch."""
    clips = replace(clips, redrawn=clips.latents.clone())
    given = [
        widen(each) for each in draw_pool(kind, model, held_out, VALIDATION_BATCHES, config.batch_size, [7])
    ]
    branch_steps = max(1, round(BRANCH_SHARE * config.steps))
    steps = max(1, (config.steps - branch_steps) // ROUNDS)
    for lap in range(ROUNDS):
        # drawn when it is first needed: not for a round that is already behind
        pool = cache(partial(draw_pool, kind, model, clips, POOL, config.batch_size, (config.seed, lap)))

        def resample_loss(module: nn.Module, pool: Pool = pool) -> BatchLoss:
            def loss(rng: np.random.Generator) -> Tensor:
                sample = pick(pool(), rng)
                drawn = module(build_condition(sample.read, model.config.extras))
                return known_error(drawn, sample.target, sample.read)

            return loss

        def validate(module: nn.Module) -> dict[str, float]:
            errors = []
            for sample in given:
                with mixed_precision(model.device):
                    drawn = module(build_condition(sample.read, model.config.extras))
                found = (
                    known_error(each, sample.target, sample.read) for each in (drawn, sample.read.latents)
                )
                errors.append([float(error) for error in found])
            drawn_error, read_error = np.mean(errors, axis=0)
            return {"validation_known": float(drawn_error), "validation_as_read": float(read_error)}

        model.requires_grad_(False)
        model.resampler.requires_grad_(True)
        lap_config = replace(config, steps=steps, seed=config.seed + lap)
        run_stage(f"{kind}-resample-{lap}", model.resampler, resample_loss, lap_config, out, validate)

    def branch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            return flow_loss(model, module, pick(pool(), rng), rng, memory=True)

        return loss

    model.requires_grad_(False)
    model.generator.branch.requires_grad_(True)
    branch_config = replace(config, steps=branch_steps, learning_rate=0.5 * config.learning_rate)
    validate_branch = partial(_unknown_error, model, given=given)
    run_stage(f"{kind}-branch", model.generator, branch_loss, branch_config, out, validate_branch)
    model.requires_grad_(False)


def _unknown_error(model: WorldModel, module: nn.Module, given: Sequence[Sample]) -> dict[str, float]:
    """Loss of the generator over held-out samples."""
    errors = []
    for index, sample in enumerate(given):
        rng = np.random.default_rng([7, index])
        with mixed_precision(model.device):
            errors.append(float(flow_loss(model, module, sample, rng, memory=True, from_noise=0.0)))
    return {"validation_unknown": float(np.mean(errors))}


def widen(sample: Sample) -> Sample:
    """Latents in 32 bit."""
    read = replace(sample.read, latents=sample.read.latents.float())
    return replace(sample, target=sample.target.float(), read=read)


def pick(pool: list[Sample], rng: np.random.Generator) -> Sample:
    """Pick a batch of the pool."""
    return widen(pool[int(rng.integers(len(pool)))])
