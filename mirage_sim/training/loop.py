"""The loop every stage shares: seeded batches, bf16, averaged weights, checkpoints, a log that plots.

All chance of a step is drawn from its number, so a run that was interrupted goes on exactly where it was.
Under `accelerate launch` several processes share the work; each holds everything, or its part of every layer.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import AutocastKwargs, DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from tqdm import tqdm

from mirage_sim.errors import InputError
from mirage_sim.files import whole_file
from mirage_sim.libraries import from_library
from mirage_sim.training.config import StageConfig
from mirage_sim.training.precision import uses_bf16
from mirage_sim.training.resume import resume_run, save_run

VALIDATION_BATCHES = 6
BatchLoss = Callable[[np.random.Generator], Tensor]


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


def processes() -> PartialState:
    """This process among those that `accelerate launch` started, on a GPU each or on the CPU."""
    return PartialState(cpu=not torch.cuda.is_available())


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
    shards: Sequence[nn.Module] = (),
    identity: Mapping[str, Any] | None = None,
) -> None:
    """Train the parameters of `module` that require gradients, resuming from `out` if it holds a checkpoint.

    Args:
        name: Stage name; `<name>.jsonl`, `<name>.png` and the folder `<name>` of checkpoints are under `out`.
        module: Network to train; holds the averaged weights on return, and of those in `shards` this
            process's part.
        batch_loss: Given the (wrapped) module, returns a function from a batch's random generator to the
            scalar loss.
        config: Length, rate, seed.
        out: Folder of the run.
        validate: Given the module with averaged weights, returns figures for the log; every process calls it.
        shards: Layers whose weights are divided among the processes, the rest of the module being one more;
            none: every process holds all of them.
        identity: What else a run that goes on must agree with, as JSON can hold it.

    Raises:
        FileFormatError: If the checkpoint belongs to another configuration of the stage.
        InputError: If there are shards but one process, or averages of them are asked for, or accelerate is
            to divide the weights its own way.
    """
    out.mkdir(parents=True, exist_ok=True)
    kind = processes().distributed_type
    if os.environ.get("ACCELERATE_USE_FSDP", "") == "true" or "DEEPSPEED" in str(kind):
        raise InputError("accelerate must be started without FSDP and DeepSpeed: --shard divides the weights")
    if shards and config.ema > 0:
        raise InputError(f"ema must be 0 where weights are divided among processes, got {config.ema}")
    accelerator = Accelerator(
        mixed_precision="bf16" if uses_bf16(PartialState().device) else "no",
        gradient_accumulation_steps=config.accumulate,
        kwargs_handlers=[
            AutocastKwargs(cache_enabled=False),  # else a copy in bf16 of all that is trained stays
            DistributedDataParallelKwargs(gradient_as_bucket_view=True),
        ],
    )
    module.to(accelerator.device)
    wrapped = _divide(module, shards, accelerator) if shards else accelerator.prepare(module)
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        weight_decay=config.weight_decay,
        betas=(0.9, 0.99),
        fused=accelerator.device.type == "cuda",
    )
    ema = None
    if config.ema > 0:
        ema = from_library("diffusers.training_utils", "EMAModel")(
            trained, decay=config.ema, use_ema_warmup=True, inv_gamma=1.0, power=0.75, foreach=True
        )
        ema.to(accelerator.device)
    about = _identity(config) | dict(identity or {}) | {"processes": accelerator.num_processes}
    averages = ema.shadow_params if ema is not None else None
    first = resume_run(out / name, about, module, optimizer, averages)
    if ema is not None:
        ema.optimization_step = first
    loss_of = batch_loss(wrapped)
    wrapped.train()
    log = out / f"{name}.jsonl"
    saved_at, main = time.monotonic(), accelerator.is_main_process
    if main:
        _forget_after(log, first)
    steps = range(first, config.steps)
    progress = tqdm(
        steps, initial=first, total=config.steps, desc=name, mininterval=5.0, disable=None if main else True
    )
    history: list[Tensor] = []  # waiting for every loss would stall an accelerator
    for step in progress:
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * learning_rate_factor(step, config)
        number = [config.seed, step, accelerator.process_index]
        rng = np.random.default_rng(number)
        torch.manual_seed(int(np.random.default_rng([*number, 1]).integers(2**62)))  # for dropout
        for batch in range(config.accumulate):
            waits = not shards and batch + 1 < config.accumulate  # gradients of parts are summed at once
            with accelerator.no_sync(wrapped) if waits else nullcontext():
                with accelerator.autocast():
                    loss = loss_of(rng)
                accelerator.backward(loss)
            history.append(loss.detach())
        norm = torch.nn.utils.clip_grad_norm_(trained, config.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        if ema is not None:
            ema.step(trained)
        last = step + 1 == config.steps
        validates = config.validate_every > 0 and (last or (step + 1) % config.validate_every == 0)
        if not (last or validates or (step + 1) % config.log_every == 0):
            continue
        mean = accelerator.reduce(torch.stack(history).mean(), "mean")
        history.clear()
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        line: dict[str, Any] = {"step": step + 1, "loss": float(mean), "gradient": float(whole)}
        if validate is not None and validates:
            line |= _validate_averaged(validate, module, ema, trained)
            wrapped.train()
        if main:
            _append(log, line)
            progress.set_postfix(loss=line["loss"])
        late = torch.tensor(float(time.monotonic() - saved_at > config.checkpoint_seconds))
        if last or float(accelerator.reduce(late.to(accelerator.device), "sum")) > 0:
            save_run(out / name, step + 1, about, module, optimizer, averages)
            saved_at = time.monotonic()
    if ema is not None:
        ema.copy_to(trained)
    if not shards:
        accelerator.unwrap_model(wrapped, keep_fp32_wrapper=False)
    if main:
        plot_log(log, out / f"{name}.png")
    accelerator.wait_for_everyone()


def _divide(module: nn.Module, shards: Sequence[nn.Module], accelerator: Accelerator) -> nn.Module:
    """Leave this process its part of every layer, and of the rest."""
    if accelerator.num_processes < 2:
        raise InputError(
            "shards must be left out with one process: `accelerate launch` starts several, got 1"
        )
    mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
    for layer in (*shards, module):
        fully_shard(layer, mesh=mesh)
    return module


def _validate_averaged(
    validate: Callable[[nn.Module], dict[str, float]],
    module: nn.Module,
    ema: Any,
    trained: list[Any],
) -> dict[str, float]:
    module.eval()
    if ema is not None:
        ema.store(trained)
        ema.copy_to(trained)
    with torch.no_grad():
        figures = validate(module)
    if isinstance(module, FSDPModule):
        module.reshard()  # the outermost weights stay gathered after a forward pass alone
    if ema is not None:
        ema.restore(trained)
    return figures


def _identity(config: StageConfig) -> dict[str, Any]:
    only_watched = ("checkpoint_seconds", "log_every", "validate_every")
    return {key: value for key, value in asdict(config).items() if key not in only_watched}


def _forget_after(log: Path, step: int) -> None:
    """Take lines out of a log that will be written again."""
    if log.is_file():
        lines = [line for line in log.read_text().splitlines() if json.loads(line)["step"] <= step]
        with whole_file(log) as temporary:
            temporary.write_text("".join(f"{line}\n" for line in lines))


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
        axes.plot(*zip(*points, strict=True), marker=".")
        axes.set_title(name)
        axes.set_xlabel("step")
    figure.savefig(picture, dpi=80)
