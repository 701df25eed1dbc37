"""The stages as commands: `mirage-sim train STAGE`; arguments are checked before torch is imported.

All stages share one run folder: `clips/` holds the recordings, `model/` the world model as trained so far,
and each stage its checkpoint, log and plot. A stage that was interrupted goes on where it was.

With `--world-model FOLDER` the stages "branch" and "lora" train full-size weights on a file of latents;
"bench" times their steps.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirage_sim.arguments import check_at_least, check_file, make_folder, path_exists
from mirage_sim.baselines.config import KINDS
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.model.config import CONFIG_FILE, WEIGHTS_FILE, LoRAConfig
from mirage_sim.training.config import (
    ClipsConfig,
    FullSizeConfig,
    SequencesConfig,
    StageConfig,
    TrainBenchConfig,
)
from mirage_sim.training.history import untrained_stages

Parser = argparse.ArgumentParser
Args = argparse.Namespace


@dataclass(frozen=True)
class Schedule:
    """Default length, batch and rate of a trained stage."""

    steps: int
    batch_size: int
    learning_rate: float
    validate_every: int


@dataclass(frozen=True)
class Stage:
    """One stage.

    Attributes:
        summary: What help says.
        schedule: Of a stage that trains; `None` for the others.
    """

    summary: str
    schedule: Schedule | None = None


STAGES = {
    "data": Stage("record clips of walks through training flats"),
    "codec": Stage("pictures to latents and back", Schedule(9000, 16, 1e-3, 200)),
    "depth": Stage("the depth head", Schedule(600, 32, 1e-3, 100)),
    "resample": Stage("what was read, for the present view", Schedule(4400, 32, 1e-3, 250)),
    "backbone": Stage("the generator without a memory", Schedule(300, 16, 8e-4, 150)),
    "branch": Stage("the memory branch, the backbone staying as it is", Schedule(300, 32, 8e-4, 150)),
    "lora": Stage("adapters of the backbone, merged into it", Schedule(300, 32, 5e-4, 150)),
    "finetune": Stage("the whole generator", Schedule(1300, 32, 8e-4, 500)),
    "refine": Stage("the refiner", Schedule(9100, 32, 1e-3, 500)),
    "guide": Stage("a smaller refiner, by which the refiner is guided", Schedule(500, 32, 1e-3, 250)),
    "distil": Stage("guidance into the refiner", Schedule(1500, 16, 3e-4, 500)),
    "baseline-colours": Stage("own parts of the colour points", Schedule(2400, 32, 5e-4, 200)),
    "baseline-appended": Stage("own parts of the appended tokens", Schedule(2400, 32, 5e-4, 200)),
    "baseline-retrieved": Stage("own parts of the retrieved frames", Schedule(300, 32, 5e-4, 200)),
    "export": Stage("copy the model of a run"),
    "bench": Stage("time steps of branch and lora at full size, with random weights, on a GPU"),
}
BASELINES = tuple(f"baseline-{kind}" for kind in KINDS)
MODEL_STAGES = tuple(name for name in STAGES if STAGES[name].schedule and name not in BASELINES)
"""Stages that train a part of the model that is exported, in their order."""

FULL_SIZE_SCHEDULES = {"branch": Schedule(10000, 1, 1e-4, 500), "lora": Schedule(20000, 1, 5e-5, 500)}
"""Steps and rates of the paper; its 64 samples a step come from processes and `--accumulate`."""


def add_arguments(parser: Parser) -> None:
    """Add the stages, each with its own arguments.

    Args:
        parser: Of `mirage-sim train`.
    """
    stages = parser.add_subparsers(dest="stage", metavar="STAGE", required=True)
    for name, stage in STAGES.items():
        each = stages.add_parser(name, help=stage.summary, description=stage.summary)
        each.add_argument("--out", type=Path, default=Path("runs/embedded"), help="folder of the run")
        if name == "data":
            _add_data_options(each)
        elif name == "export":
            _add_export_options(each)
        else:
            _add_schedule_options(each)
        if name in FULL_SIZE_SCHEDULES:
            _add_full_size_options(each, name)
        if name == "bench":
            _add_activations_option(each)


def _add_data_options(parser: Parser) -> None:
    parser.add_argument(
        "--scenes", type=int, default=ClipsConfig.scenes, help="training scenes (default: %(default)s)"
    )
    parser.add_argument(
        "--validation-scenes", type=int, default=24, help="validation scenes (default: %(default)s)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes (default: %(default)s)")


def _add_export_options(parser: Parser) -> None:
    parser.add_argument("--to", type=Path, required=True, help="folder that receives the model")
    parser.add_argument(
        "--allow-untrained",
        action="store_true",
        help="export a model some stages of which were never trained",
    )


def _add_schedule_options(parser: Parser) -> None:
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the stage's own)")
    parser.add_argument("--batch-size", type=int, help="samples a step (default: the stage's own)")
    parser.add_argument("--learning-rate", type=float, help="peak rate (default: the stage's own)")
    parser.add_argument("--seed", type=int, default=0, help="of weights and batches (default: %(default)s)")


def _add_activations_option(parser: Any) -> None:
    parser.add_argument("--keep-activations", action="store_true", help="faster, with more memory")


def _add_full_size_options(parser: Parser, stage: str) -> None:
    full = parser.add_argument_group("full size")
    full.add_argument("--world-model", type=Path, help="folder of full-size weights")
    full.add_argument("--latents", type=Path, help="training clips that `mirage-sim encode` wrote")
    full.add_argument("--held-out", type=Path, help="validation clips, likewise")
    full.add_argument("--prompts", type=Path, help="stored embedding, or a folder of <video>.safetensors")
    full.add_argument("--branch", type=Path, help="memory branch to go on from (default: that of the run)")
    full.add_argument("--segment-length", type=int, help="latent frames of a target (default: 8)")
    full.add_argument("--accumulate", type=int, default=1, help="batches of a step (default: %(default)s)")
    full.add_argument("--shard", action="store_true", help="divide weights among the processes (FSDP)")
    _add_activations_option(full)
    full.add_argument("--validate-every", type=int, default=500, help="steps (default: %(default)s)")
    full.add_argument("--log-every", type=int, default=10, help="steps (default: %(default)s)")
    if stage == "lora":
        full.add_argument("--rank", type=int, default=32, help="of the adapters (default: %(default)s)")
        full.add_argument("--alpha", type=int, default=32, help="scale times rank (default: %(default)s)")
        full.add_argument("--dropout", type=float, default=0.05, help="in adapters (default: %(default)s)")
    else:
        full.add_argument(
            "--published-condition",
            action="store_true",
            help="let a new branch see what the published one does",
        )


def run(args: Args) -> dict[str, Any]:
    """Check the arguments, and run one stage.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Where the result is.

    Raises:
        InputError: If an argument is wrong.
        FileFormatError: If an earlier stage is missing.
    """
    carry_out = _prepare(args)
    return carry_out()


def _prepare(args: Args) -> Callable[[], dict[str, Any]]:
    """Check everything that needs no torch, and give what is to be done."""
    if args.stage == "data":
        return _prepare_data(args)
    if args.stage == "export":
        return _prepare_export(args)
    if args.stage == "bench":
        return _prepare_bench(args)
    if getattr(args, "world_model", None) is not None:
        return _prepare_full_size(args)
    if getattr(args, "latents", None) is not None:
        raise InputError(
            "--world-model must name a folder of full-size weights beside --latents, got nothing"
        )
    config = _stage_config(args, STAGES[args.stage].schedule)
    _check_clips(args.out)
    if args.stage != "codec" and not path_exists(args.out / "model" / CONFIG_FILE):
        raise FileFormatError(
            f"--out must hold a model with a codec, got {args.out} without one: "
            f"run `mirage-sim train codec --out {args.out}` first"
        )
    make_folder("--out", args.out)

    def train() -> dict[str, Any]:
        from mirage_sim.training.run import train_embedded

        return train_embedded(args.stage, config, args.out)

    return train


def _stage_config(args: Args, schedule: Schedule | None, **settings: Any) -> StageConfig:
    if schedule is None:
        raise InputError(f"stage must be one that trains, got {args.stage!r}")
    return StageConfig(
        steps=_given(args.steps, schedule.steps),
        batch_size=_given(args.batch_size, schedule.batch_size),
        learning_rate=_given(args.learning_rate, schedule.learning_rate),
        seed=args.seed,
        **{"validate_every": schedule.validate_every, **settings},
    )


def _check_clips(out: Path) -> None:
    for split in ("train", "validation"):
        if not any((out / "clips").glob(f"{split}-*.h5")):
            raise FileFormatError(
                f"--out must hold clips, got {out} without clips/{split}-*.h5: "
                f"run `mirage-sim train data --out {out}` first"
            )


def _prepare_data(args: Args) -> Callable[[], dict[str, Any]]:
    check_at_least("--workers", args.workers, 1)
    held_out = ClipsConfig(split="validation", scenes=args.validation_scenes, shards=2)
    clips = ClipsConfig(split="train", scenes=args.scenes)
    make_folder("--out", args.out / "clips")

    def record() -> dict[str, Any]:
        from mirage_sim.training.data import record_clips

        for config in (held_out, clips):
            record_clips(config, args.out / "clips", args.workers)
        return {"clips": str(args.out / "clips")}

    return record


def _prepare_export(args: Args) -> Callable[[], dict[str, Any]]:
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not path_exists(args.out / "model" / name):
            raise FileFormatError(
                f"--out must hold a trained model, got {args.out} without model/{name}: "
                f"run `mirage-sim train codec --out {args.out}` and the stages after it first"
            )
    missing = untrained_stages(args.out, MODEL_STAGES)
    if missing and not args.allow_untrained:
        raise InputError(
            f"--out must hold a model all of whose stages were trained, got {args.out} without "
            f"{', '.join(missing)}; --allow-untrained exports it as it is"
        )
    make_folder("--to", args.to)

    def export() -> dict[str, Any]:
        from mirage_sim.training.run import export_model

        return {"model": str(export_model(args.out / "model", args.to)), "untrained": missing}

    return export


def _prepare_bench(args: Args) -> Callable[[], dict[str, Any]]:
    config = TrainBenchConfig(
        steps=_given(args.steps, TrainBenchConfig.steps),
        batch_size=_given(args.batch_size, TrainBenchConfig.batch_size),
        recompute=not args.keep_activations,
        seed=args.seed,
    )
    make_folder("--out", args.out)

    def bench() -> dict[str, Any]:
        from mirage_sim.training.run import run_bench

        return run_bench(config, args.out)

    return bench


def _prepare_full_size(args: Args) -> Callable[[], dict[str, Any]]:
    if args.latents is None:
        raise InputError("--latents must name the file of training clips at full size, got nothing")
    if not path_exists(args.world_model):
        raise FileFormatError(
            f"--world-model must be a folder of weights, got {args.world_model}, which does not exist"
        )
    for name in ("latents", "held_out", "branch"):
        if getattr(args, name) is not None:
            check_file(f"--{name.replace('_', '-')}", getattr(args, name))
    config = _stage_config(
        args,
        FULL_SIZE_SCHEDULES[args.stage],
        ema=0.0,
        checkpoint_seconds=900.0,
        log_every=args.log_every,
        validate_every=args.validate_every,
        accumulate=args.accumulate,
    )
    if args.segment_length is not None:
        check_at_least("--segment-length", args.segment_length, 1)
    adapters = {} if args.stage == "branch" else {"lora": LoRAConfig(args.rank, args.alpha, args.dropout)}
    how = FullSizeConfig(
        sequences=SequencesConfig(args.prompts),
        shard=args.shard,
        recompute=not args.keep_activations,
        **adapters,
    )
    make_folder("--out", args.out)

    def train() -> dict[str, Any]:
        from mirage_sim.training.run import FullSizeRun, train_at_full_size

        published = args.stage == "branch" and args.published_condition
        files = (args.world_model, args.latents, args.held_out, args.branch)
        return train_at_full_size(
            FullSizeRun(args.stage, *files, args.segment_length, published), config, how, args.out
        )

    return train


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value
