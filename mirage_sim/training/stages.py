"""The stages as commands: `mirage-sim train STAGE`.

All stages share one run folder: `clips/` holds the recordings, `model/` the world model as trained so far,
and each stage its checkpoint, log and plot. A stage that was interrupted goes on where it was.

With `--world-model FOLDER` the stages "branch" and "lora" train full-size weights on a file of latents;
"bench" times their steps.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mirage_sim.baselines.weights import KINDS
from mirage_sim.checkpoints.published import BRANCH_STEM
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation.report import hardware, write_json
from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.world_model import CONFIG_FILE, WEIGHTS_FILE, WorldModel, load_folder
from mirage_sim.sources.latents import open_latents
from mirage_sim.training.baselines import train_baseline
from mirage_sim.training.bench import bench_train, train_table
from mirage_sim.training.codec import train_codec
from mirage_sim.training.config import (
    ClipsConfig,
    FullSizeConfig,
    SequencesConfig,
    StageConfig,
    TrainBenchConfig,
)
from mirage_sim.training.data import read_clips, record_clips
from mirage_sim.training.depth import train_depth
from mirage_sim.training.distil import train_distil
from mirage_sim.training.full_size import open_to_train, train_full_size
from mirage_sim.training.generator import train_generator
from mirage_sim.training.guide import train_guide
from mirage_sim.training.loop import processes
from mirage_sim.training.refine import train_refine
from mirage_sim.training.resample import train_resample
from mirage_sim.training.samples import encode_clips

BASELINES = tuple(f"baseline-{kind}" for kind in KINDS)
STAGES = (
    "data",
    "codec",
    "depth",
    "resample",
    "backbone",
    "branch",
    "lora",
    "finetune",
    "refine",
    "guide",
    "distil",
    *BASELINES,
    "export",
    "bench",
)


@dataclass(frozen=True)
class Schedule:
    """Default length, batch and rate of a trained stage."""

    steps: int
    batch_size: int
    learning_rate: float
    validate_every: int


SCHEDULES = {
    "codec": Schedule(9000, 16, 1e-3, 200),
    "depth": Schedule(600, 32, 1e-3, 100),
    "resample": Schedule(4400, 32, 1e-3, 250),
    "backbone": Schedule(300, 16, 8e-4, 150),
    "branch": Schedule(300, 32, 8e-4, 150),
    "lora": Schedule(300, 32, 5e-4, 150),
    "finetune": Schedule(1300, 32, 8e-4, 500),
    "refine": Schedule(9100, 32, 1e-3, 500),
    "guide": Schedule(500, 32, 1e-3, 250),
    "distil": Schedule(1500, 16, 3e-4, 500),
    "baseline-colours": Schedule(2400, 32, 5e-4, 200),
    "baseline-appended": Schedule(2400, 32, 5e-4, 200),
    "baseline-retrieved": Schedule(300, 32, 5e-4, 200),
}

FULL_SIZE_SCHEDULES = {"branch": Schedule(10000, 1, 1e-4, 500), "lora": Schedule(20000, 1, 5e-5, 500)}
"""Steps and rates of the paper; its 64 samples a step come from processes and `--accumulate`."""

ON_LATENTS = {
    "depth": train_depth,
    "resample": train_resample,
    "refine": train_refine,
    "guide": train_guide,
    "distil": train_distil,
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim train`."""
    parser.add_argument("stage", choices=STAGES, help="what to do")
    parser.add_argument("--out", type=Path, default=Path("runs/embedded"), help="folder of the run")
    parser.add_argument("--steps", type=int, help="optimiser steps (default: the stage's own)")
    parser.add_argument("--batch-size", type=int, help="samples a step (default: the stage's own)")
    parser.add_argument("--learning-rate", type=float, help="peak rate (default: the stage's own)")
    parser.add_argument(
        "--scenes", type=int, default=ClipsConfig.scenes, help="training scenes to record (data)"
    )
    parser.add_argument(
        "--validation-scenes", type=int, default=24, help="validation scenes to record (data)"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that record (data)")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and batches")
    parser.add_argument("--to", type=Path, help="folder that receives the model (export)")
    full = parser.add_argument_group("full size (branch, lora, bench)")
    full.add_argument("--world-model", type=Path, help="folder of full-size weights")
    full.add_argument("--latents", type=Path, help="training clips that `mirage-sim encode` wrote")
    full.add_argument("--held-out", type=Path, help="validation clips, likewise")
    full.add_argument("--prompts", type=Path, help="stored embedding, or a folder of <video>.safetensors")
    full.add_argument("--branch", type=Path, help="memory branch to go on from (default: that of the run)")
    full.add_argument(
        "--published-condition", action="store_true", help="let a new branch see what the published one does"
    )
    full.add_argument("--segment-length", type=int, help="latent frames of a target (default: 8)")
    full.add_argument("--accumulate", type=int, default=1, help="batches of a step (default: %(default)s)")
    full.add_argument("--rank", type=int, default=32, help="of the adapters (default: %(default)s)")
    full.add_argument("--alpha", type=int, default=32, help="scale times rank (default: %(default)s)")
    full.add_argument("--dropout", type=float, default=0.05, help="in adapters (default: %(default)s)")
    full.add_argument("--shard", action="store_true", help="divide weights among the processes (FSDP)")
    full.add_argument("--keep-activations", action="store_true", help="faster, with more memory")
    full.add_argument("--validate-every", type=int, default=500, help="steps (default: %(default)s)")
    full.add_argument("--log-every", type=int, default=10, help="steps (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run one stage.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Where the result is.

    Raises:
        FileFormatError: If an earlier stage is missing.
    """
    out: Path = args.out
    if args.stage == "bench":
        return _bench(args, out)
    if args.latents is not None and args.world_model is None:
        raise InputError("world_model must name a folder of full-size weights beside latents, got nothing")
    if args.world_model is not None:
        return _train_at_full_size(args, out)
    if args.stage == "data":
        record_clips(
            ClipsConfig(split="validation", scenes=args.validation_scenes, shards=2),
            out / "clips",
            args.workers,
        )
        record_clips(ClipsConfig(split="train", scenes=args.scenes), out / "clips", args.workers)
        return {"clips": str(out / "clips")}
    if args.stage == "export":
        if args.to is None:
            raise FileFormatError("--to must name the folder that receives the model, got nothing")
        args.to.mkdir(parents=True, exist_ok=True)
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            shutil.copy2(out / "model" / name, args.to / name)
        return {"model": str(args.to)}
    _train(args, out)
    if args.stage in BASELINES:
        return {"weights": str(out / "baselines" / f"{args.stage.removeprefix('baseline-')}.safetensors")}
    return {"model": str(out / "model"), "log": str(out / f"{args.stage}.jsonl")}


def _train(args: argparse.Namespace, out: Path) -> None:
    torch.manual_seed(args.seed)
    schedule = SCHEDULES[args.stage]
    config = StageConfig(
        steps=_given(args.steps, schedule.steps),
        batch_size=_given(args.batch_size, schedule.batch_size),
        learning_rate=_given(args.learning_rate, schedule.learning_rate),
        validate_every=schedule.validate_every,
        seed=args.seed,
    )
    clips, held_out = read_clips(out / "clips", "train"), read_clips(out / "clips", "validation")
    model = WorldModel().to(best_device()) if args.stage == "codec" else load_trained(out / "model")
    if args.stage == "codec":
        train_codec(model.codec, clips, held_out, config, out)
        model.save(out / "model")
        return
    encoded = encode_clips(model, clips, out / "train-latents.safetensors").to(model.device)
    encoded_held_out = encode_clips(model, held_out, out / "validation-latents.safetensors").to(model.device)
    clips = replace(clips, rgb=clips.rgb[:0])  # the pictures are no longer needed
    if args.stage in BASELINES:
        train_baseline(args.stage.removeprefix("baseline-"), model, encoded, encoded_held_out, config, out)
        return
    if args.stage in ON_LATENTS:
        ON_LATENTS[args.stage](model, encoded, encoded_held_out, config, out)
    else:
        train_generator(args.stage, model, encoded, encoded_held_out, config, out)
    model.save(out / "model")


def _train_at_full_size(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    if args.stage not in FULL_SIZE_SCHEDULES:
        raise InputError(
            f"stage must be one of {sorted(FULL_SIZE_SCHEDULES)} at full size, got {args.stage!r}"
        )
    if args.latents is None:
        raise InputError("latents must name the file of training clips at full size, got nothing")
    schedule = FULL_SIZE_SCHEDULES[args.stage]
    config = StageConfig(
        steps=_given(args.steps, schedule.steps),
        batch_size=_given(args.batch_size, schedule.batch_size),
        learning_rate=_given(args.learning_rate, schedule.learning_rate),
        ema=0.0,
        seed=args.seed,
        checkpoint_seconds=900.0,
        log_every=args.log_every,
        validate_every=args.validate_every,
        accumulate=args.accumulate,
    )
    how = FullSizeConfig(
        LoRAConfig(args.rank, args.alpha, args.dropout),
        SequencesConfig(args.prompts),
        args.shard,
        not args.keep_activations,
    )
    trained = out / f"{BRANCH_STEM}.safetensors"
    branch = args.branch or (trained if args.stage == "lora" and trained.is_file() else None)
    settings = {} if args.segment_length is None else {"segment_length": args.segment_length}
    model, clips = open_to_train(args.world_model, args.latents, branch, args.published_condition, **settings)
    if args.stage == "lora" and not bool(next(model.generator.branch.after_proj.parameters()).any()):
        raise InputError(f"branch must name a trained memory branch for lora, or {trained} be one, got none")
    held_out = None if args.held_out is None else open_latents(args.held_out, clips.settings.codec_sha256)
    written = train_full_size(args.stage, model, clips, held_out, config, out, how)
    if not processes().is_main_process:
        return {}
    return {"weights": str(written), "log": str(out / f"{args.stage}.jsonl")}


def _bench(args: argparse.Namespace, out: Path) -> dict[str, Any]:
    config = TrainBenchConfig(
        steps=_given(args.steps, TrainBenchConfig.steps),
        batch_size=_given(args.batch_size, TrainBenchConfig.batch_size),
        recompute=not args.keep_activations,
        device=best_device(),
        seed=args.seed,
    )
    result = bench_train(config)
    print(train_table(result))
    report = {"command": "train bench", "settings": asdict(config), "hardware": hardware(config.device)}
    return {"report": str(write_json(out / "bench.json", report | {"figures": result}))}


def _given(value: Any, default: Any) -> Any:
    return default if value is None else value


def load_trained(folder: Path) -> WorldModel:
    """Load the model of a run in float32, to train it further."""
    return load_folder(folder).to(best_device())


def best_device() -> str:
    """Where training runs: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
