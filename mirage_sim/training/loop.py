"""The loop every stage shares: seeded batches, bf16, averaged weights, checkpoints, a log that plots.

A batch is drawn from the step's number alone, so a run that was interrupted goes on exactly where it was.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from diffusers.training_utils import EMAModel
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.errors import FileFormatError, InputError

VALIDATION_BATCHES = 6
BatchLoss = Callable[[np.random.Generator], Tensor]


@dataclass(frozen=True)
class StageConfig:
    """How one stage is trained.

    Attributes:
        steps: Optimiser steps.
        batch_size: Samples a step and process.
        learning_rate: Peak of the schedule (linear warm-up, cosine decay to 5 %).
        warmup: Steps of warm-up.
        weight_decay: AdamW's.
        clip: Largest gradient norm.
        ema: Decay of the averaged weights that are exported.
        seed: Seeds every batch.
        checkpoint_seconds: Time between two checkpoints.
        log_every: Steps between two lines of the log.
        validate_every: Steps between two validations.
    """

    steps: int
    batch_size: int = 16
    learning_rate: float = 1e-3
    warmup: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    checkpoint_seconds: float = 120.0
    log_every: int = 20
    validate_every: int = 500

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.steps < 1 or self.batch_size < 1:
            raise InputError(
                f"steps and batch_size must be at least 1, got {self.steps} and {self.batch_size}"
            )
        if not 0 <= self.ema < 1:
            raise InputError(f"ema must be in [0, 1), got {self.ema}")


def cell_error(drawn: Tensor, target: Tensor, cells: Tensor) -> Tensor:
    """Mean squared error over some cells.

    Args:
        drawn: [B, T, C, h, w].
        target: Likewise.
        cells: 1 in cells that count, else 0; float32 [B, T, 1, h, w].

    Returns:
        Scalar, 0 if no cell counts.
    """
    error = (drawn - target).square().mean(dim=2, keepdim=True) * cells
    mean: Tensor = error.sum() / cells.sum().clamp(min=1.0)
    return mean


def learning_rate_factor(step: int, config: StageConfig) -> float:
    """Share of the peak learning rate at `step`: linear warm-up, then cosine to 5 %."""
    if step < config.warmup:
        return (step + 1) / config.warmup
    progress = min(1.0, (step - config.warmup) / max(1, config.steps - config.warmup))
    return 0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress))


def run_stage(
    name: str,
    module: nn.Module,
    batch_loss: Callable[[nn.Module], BatchLoss],
    config: StageConfig,
    out: Path,
    validate: Callable[[nn.Module], dict[str, float]] | None = None,
) -> None:
    """Train the parameters of `module` that require gradients, resuming from `out` if it holds a checkpoint.

    Args:
        name: Stage name; files are `<name>.pt`, `<name>.jsonl` and `<name>.png` under `out`.
        module: Network to train; holds the averaged weights on return.
        batch_loss: Given the (wrapped) module, returns a function from a batch's random generator to the
            scalar loss.
        config: Length, rate, seed.
        out: Folder of the run.
        validate: Given the module with averaged weights, returns figures for the log.

    Raises:
        FileFormatError: If the checkpoint belongs to another configuration of the stage.
    """
    out.mkdir(parents=True, exist_ok=True)
    accelerator = Accelerator(mixed_precision="bf16")
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.99),
        fused=accelerator.device.type == "cuda",
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, config))
    ema = EMAModel(trained, decay=config.ema, use_ema_warmup=True, inv_gamma=1.0, power=0.75, foreach=True)
    module.to(accelerator.device)
    ema.to(accelerator.device)
    wrapped, optimizer = accelerator.prepare(module, optimizer)
    checkpoint = out / f"{name}.pt"
    first = _resume(checkpoint, trained, optimizer, schedule, ema, config) if checkpoint.exists() else 0
    loss_of = batch_loss(wrapped)
    wrapped.train()
    saved_at = time.monotonic()
    progress = tqdm(range(first, config.steps), initial=first, total=config.steps, desc=name, mininterval=5.0)
    history: list[Tensor] = []  # waiting for every loss would stall an accelerator
    for step in progress:
        rng = np.random.default_rng([config.seed, step, accelerator.process_index])
        with accelerator.autocast():
            loss = loss_of(rng)
        accelerator.backward(loss)
        norm = accelerator.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()
        ema.step(trained)
        history.append(loss.detach())
        last = step + 1 == config.steps
        if accelerator.is_main_process and (last or (step + 1) % config.log_every == 0):
            line: dict[str, Any] = {
                "step": step + 1,
                "loss": float(torch.stack(history).mean()),
                "gradient": float(norm),
            }
            history.clear()
            if validate is not None and (last or (step + 1) % config.validate_every == 0):
                line |= _validate_averaged(validate, module, ema, trained)
                wrapped.train()
            _append(out / f"{name}.jsonl", line)
            progress.set_postfix(loss=line["loss"])
        if accelerator.is_main_process and (last or time.monotonic() - saved_at > config.checkpoint_seconds):
            _save(checkpoint, step + 1, trained, optimizer, schedule, ema, config)
            saved_at = time.monotonic()
    ema.copy_to(trained)
    if accelerator.is_main_process:
        plot_log(out / f"{name}.jsonl", out / f"{name}.png")


def _validate_averaged(
    validate: Callable[[nn.Module], dict[str, float]], module: nn.Module, ema: EMAModel, trained: list[Any]
) -> dict[str, float]:
    ema.store(trained)
    ema.copy_to(trained)
    module.eval()
    with torch.no_grad():
        figures = validate(module)
    ema.restore(trained)
    return figures


def _identity(config: StageConfig) -> dict[str, Any]:
    return {key: asdict(config)[key] for key in ("steps", "batch_size", "learning_rate", "seed", "ema")}


def _save(
    path: Path,
    step: int,
    trained: list[Any],
    optimizer: Any,
    schedule: Any,
    ema: EMAModel,
    config: StageConfig,
) -> None:
    state = {
        "step": step,
        "parameters": [parameter.detach().cpu() for parameter in trained],
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "ema": [shadow.detach().cpu() for shadow in ema.shadow_params],
        "ema_step": ema.optimization_step,
        "config": _identity(config),
    }
    temporary = path.with_suffix(".tmp")
    torch.save(state, temporary)
    os.replace(temporary, path)


def _resume(
    path: Path, trained: list[Any], optimizer: Any, schedule: Any, ema: EMAModel, config: StageConfig
) -> int:
    state = torch.load(path, weights_only=True)
    if state["config"] != _identity(config):
        raise FileFormatError(
            f"{path} was written with {state['config']}, but this run asks for {_identity(config)}: "
            "name another folder or delete the checkpoint"
        )
    with torch.no_grad():
        for parameter, stored in zip(trained, state["parameters"], strict=True):
            parameter.copy_(stored)
        for shadow, stored in zip(ema.shadow_params, state["ema"], strict=True):
            shadow.copy_(stored)
    ema.optimization_step = state["ema_step"]
    optimizer.load_state_dict(state["optimizer"])
    schedule.load_state_dict(state["schedule"])
    return int(state["step"])


def _append(path: Path, line: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(line) + "\n")


def plot_log(log: Path, picture: Path) -> None:
    """Plot every figure of a stage's log against the step.

    Args:
        log: JSON lines, each with `step` and figures.
        picture: PNG to write.
    """
    from matplotlib.figure import Figure

    lines = [json.loads(line) for line in log.read_text().splitlines() if line]
    names = sorted({name for line in lines for name in line} - {"step"})
    figure = Figure(figsize=(4.0 * len(names), 3.0), layout="constrained")
    for column, name in enumerate(names):
        axes = figure.add_subplot(1, len(names), column + 1)
        points = [(line["step"], line[name]) for line in lines if name in line]
        axes.plot(*zip(*points, strict=True))
        axes.set_title(name)
        axes.set_xlabel("step")
    figure.savefig(picture, dpi=80)
