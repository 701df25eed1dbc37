"""Run: carries out a stage whose arguments have been checked."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from mirage_sim.checkpoints.published import BRANCH_STEM
from mirage_sim.errors import InputError
from mirage_sim.evaluation.report import hardware, write_json
from mirage_sim.model.config import CONFIG_FILE, WEIGHTS_FILE
from mirage_sim.model.world_model import WorldModel, load_folder
from mirage_sim.sources.latents import open_latents
from mirage_sim.training.baselines import train_baseline
from mirage_sim.training.bench import bench_train, train_table
from mirage_sim.training.codec import train_codec
from mirage_sim.training.config import FullSizeConfig, StageConfig, TrainBenchConfig
from mirage_sim.training.data import read_clips
from mirage_sim.training.depth import train_depth
from mirage_sim.training.distil import train_distil
from mirage_sim.training.full_size import open_to_train, train_full_size
from mirage_sim.training.generator import train_generator
from mirage_sim.training.guide import train_guide
from mirage_sim.training.loop import processes
from mirage_sim.training.refine import train_refine
from mirage_sim.training.resample import train_resample
from mirage_sim.training.samples import encode_clips

ON_LATENTS = {
    "depth": train_depth,
    "resample": train_resample,
    "refine": train_refine,
    "guide": train_guide,
    "distil": train_distil,
}


@dataclass(frozen=True)
class FullSizeRun:
    """What a stage at full size begins from.

    Attributes:
        stage: "branch" or "lora".
        world_model: Folder of the weights.
        latents: File of training clips.
        held_out: File of validation clips, or `None`.
        branch: File of a memory branch to go on from, or `None`.
        segment_length: Latent frames of a target; the model's own if `None`.
        published_condition: Whether a new branch sees what the published one does.
    """

    stage: str
    world_model: Path
    latents: Path
    held_out: Path | None = None
    branch: Path | None = None
    segment_length: int | None = None
    published_condition: bool = False


def train_embedded(stage: str, config: StageConfig, out: Path) -> dict[str, Any]:
    """Train one stage of the embedded model.

    Args:
        stage: One that trains.
        config: Length and rate.
        out: Folder of the run.

    Returns:
        Where the result is.

    Raises:
        FileFormatError: If clips or the model are missing or damaged.
    """
    torch.manual_seed(config.seed)
    clips, held_out = read_clips(out / "clips", "train"), read_clips(out / "clips", "validation")
    model = WorldModel().to(best_device()) if stage == "codec" else load_trained(out / "model")
    done = {"model": str(out / "model"), "log": str(out / f"{stage}.jsonl")}
    if stage == "codec":
        train_codec(model.codec, clips, held_out, config, out)
        model.save(out / "model")
        return done
    encoded = encode_clips(model, clips, out / "train-latents.safetensors").to(model.device)
    encoded_held_out = encode_clips(model, held_out, out / "validation-latents.safetensors").to(model.device)
    clips = replace(clips, rgb=clips.rgb[:0])  # the pictures are no longer needed
    if stage.startswith("baseline-"):
        kind = stage.removeprefix("baseline-")
        train_baseline(kind, model, encoded, encoded_held_out, config, out)
        return {"weights": str(out / "baselines" / f"{kind}.safetensors")}
    if stage in ON_LATENTS:
        ON_LATENTS[stage](model, encoded, encoded_held_out, config, out)
    else:
        train_generator(stage, model, encoded, encoded_held_out, config, out)
    model.save(out / "model")
    return done


def train_at_full_size(
    run: FullSizeRun, config: StageConfig, how: FullSizeConfig, out: Path
) -> dict[str, Any]:
    """Train one stage of full-size weights.

    Args:
        run: What it begins from.
        config: Length and rate.
        how: Adapters, prompts, and how the work is divided.
        out: Folder of the run.

    Returns:
        Where the result is; nothing in processes but the first.

    Raises:
        InputError: If lora is to be trained beside an untrained branch.
        FileFormatError: If a file is missing, damaged, or does not fit the others.
    """
    trained = out / f"{BRANCH_STEM}.safetensors"
    branch = run.branch or (trained if run.stage == "lora" and trained.is_file() else None)
    settings = {} if run.segment_length is None else {"segment_length": run.segment_length}
    model, clips = open_to_train(run.world_model, run.latents, branch, run.published_condition, **settings)
    if run.stage == "lora" and not bool(next(model.generator.branch.after_proj.parameters()).any()):
        raise InputError(f"branch must name a trained memory branch for lora, or {trained} be one, got none")
    held_out = None if run.held_out is None else open_latents(run.held_out, clips.settings.codec_sha256)
    written = train_full_size(run.stage, model, clips, held_out, config, out, how)
    if not processes().is_main_process:
        return {}
    return {"weights": str(written), "log": str(out / f"{run.stage}.jsonl")}


def export_model(model: Path, target: Path) -> Path:
    """Copy a model's files.

    Args:
        model: Folder of the run's model.
        target: Folder that receives them.

    Returns:
        `target`.

    Raises:
        InputError: If they cannot be written.
    """
    try:
        for name in (WEIGHTS_FILE, CONFIG_FILE):
            shutil.copy2(model / name, target / name)
    except OSError as error:  # the same file among them
        raise InputError(f"--to must be a folder that can be written, got {target}: {error}") from error
    return target


def run_bench(config: TrainBenchConfig, out: Path) -> dict[str, Any]:
    """Time steps at full size, and print the table.

    Args:
        config: What is timed, on the best device.
        out: Folder for `bench.json`.

    Returns:
        Where the report is.
    """
    config = replace(config, device=best_device())
    result = bench_train(config)
    print(train_table(result))
    report = {"command": "train bench", "settings": asdict(config), "hardware": hardware(config.device)}
    return {"report": str(write_json(out / "bench.json", report | {"figures": result}))}


def load_trained(folder: Path) -> WorldModel:
    """Load the model of a run in float32, to train it further."""
    return load_folder(folder).to(best_device())


def best_device() -> str:
    """Where training runs: a GPU where there is one."""
    return "cuda" if torch.cuda.is_available() else "cpu"
