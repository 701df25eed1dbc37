"""The `eval` commands: arguments in, JSON, pictures and a printed table out."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

from mirage_sim.evaluation.codec import FramesConfig, codec_table, evaluate_codec
from mirage_sim.evaluation.consistency import ALL_WAYS, ConsistencyConfig, evaluate_consistency
from mirage_sim.evaluation.consistency_report import consistency_page, consistency_table
from mirage_sim.evaluation.depth import DepthConfig, depth_table, evaluate_depth
from mirage_sim.evaluation.loop import LoopConfig, evaluate_loop, loop_table
from mirage_sim.evaluation.methods import LABELS
from mirage_sim.evaluation.options import (
    add_model_options,
    add_sampling_options,
    add_world_options,
    finish,
    load_model,
)
from mirage_sim.evaluation.realism import RealismConfig, evaluate_realism, realism_table
from mirage_sim.evaluation.trajectories import (
    TrajectoriesConfig,
    evaluate_trajectories,
    trajectories_table,
    write_scene_sequences,
)
from mirage_sim.evaluation.walk import WalkRunConfig, evaluate_walk, walk_table
from mirage_sim.evaluation.worlds import WorldsConfig
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import SPLITS

_SCENE_HW = (180, 320)  # of the frames that are written for trajectories


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add `codec`, `depth`, `loop`, `realism`, `walk`, `consistency` and `trajectories`.

    Args:
        parser: Of `mirage-sim eval`.
    """
    kinds = parser.add_subparsers(dest="evaluation", metavar="WHAT", required=True)
    codec = kinds.add_parser("codec", help="reconstruction of true frames")
    codec.add_argument("--frames", type=int, default=8, help="views of each scene (default: %(default)s)")
    depth = kinds.add_parser("depth", help="the depth head on true frames")
    depth.add_argument(
        "--pairs", type=int, default=8, help="pairs of views of each scene (default: %(default)s)"
    )
    loop = kinds.add_parser("loop", help="out and back, memory on and off")
    realism = kinds.add_parser("realism", help="sharpness, distances and diversity of what was imagined")
    realism.add_argument("--seeds", type=int, default=4, help="seeds for diversity (default: %(default)s)")
    loop.add_argument(
        "--every", type=int, default=2, help="steps between compared poses (default: %(default)s)"
    )
    realism.add_argument(
        "--every", type=int, default=4, help="steps between judged frames (default: %(default)s)"
    )
    for each in (loop, realism):
        each.add_argument(
            "--length", type=int, default=32, help="steps of the way out (default: %(default)s)"
        )
        each.add_argument("--batch", type=int, default=8, help="worlds at once (default: %(default)s)")
        add_sampling_options(each, "--steps")
    for each in (codec, depth, loop, realism):
        add_world_options(each)
    walk = kinds.add_parser("walk", help="a long walk around a flat")
    walk.add_argument("--steps", type=int, default=1000, help="steps of the walk (default: %(default)s)")
    walk.add_argument("--index", type=int, default=0, help="scene of the split (default: %(default)s)")
    walk.add_argument(
        "--laps", type=int, default=2, help="times through the flat and back (default: %(default)s)"
    )
    walk.add_argument(
        "--window", type=int, default=100, help="steps compared at each end (default: %(default)s)"
    )
    walk.add_argument("--no-memory", action="store_true", help="walk without the memory")
    walk.add_argument("--split", choices=sorted(SPLITS), default="test", help="(default: %(default)s)")
    walk.add_argument("--seed", type=int, default=0, help="of the way and the noise (default: %(default)s)")
    add_sampling_options(walk)
    compared = kinds.add_parser("consistency", help="every way to remember on the same ways")
    compared.add_argument("--methods", nargs="+", default=list(LABELS), help="(default: %(default)s)")
    compared.add_argument("--ways", nargs="+", default=list(ALL_WAYS), help="(default: %(default)s)")
    compared.add_argument(
        "--every", type=int, default=4, help="steps between compared poses (default: %(default)s)"
    )
    compared.add_argument("--batch", type=int, default=8, help="worlds at once (default: %(default)s)")
    add_world_options(compared)
    along = kinds.add_parser("trajectories", help="along camera files of RealEstate10K's format, and back")
    along.add_argument(
        "--folder",
        type=Path,
        help="holds <name>.txt and frames <name>/<timestamp>.png (default: test scenes, written to --out)",
    )
    along.add_argument("--methods", nargs="+", default=["latent", "none"], help="(default: %(default)s)")
    along.add_argument("--recovered", type=Path, help="recovered cameras, <name>-<method>.txt")
    along.add_argument("--scale", type=float, default=1.0, help="metres of a file's unit (default: 1)")
    along.add_argument("--frames", type=int, default=64, help="of a file at most (default: %(default)s)")
    along.add_argument("--scenes", type=int, default=8, help="to write (default: %(default)s)")
    along.add_argument("--seed", type=int, default=0, help="of walks and noise (default: %(default)s)")
    for name, each in kinds.choices.items():
        add_model_options(each, f"eval-{name}")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Carry out an evaluation.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Its figures, see `mirage_sim.evaluation.options.finish`.
    """
    config = _config(args)
    began = time.perf_counter()
    model = load_model(args)
    result, table = _measure(args, model, config)
    return finish(f"eval {args.evaluation}", args, config, model, result, table, time.perf_counter() - began)


Config = (
    FramesConfig
    | DepthConfig
    | LoopConfig
    | RealismConfig
    | WalkRunConfig
    | ConsistencyConfig
    | TrajectoriesConfig
)


def _config(args: argparse.Namespace) -> Config:
    """Turn arguments into the config of their evaluation, which checks them before anything is loaded."""
    if args.evaluation == "codec":
        return FramesConfig(args.split, args.worlds, args.frames, args.seed)
    if args.evaluation == "depth":
        return DepthConfig(args.split, args.worlds, args.pairs, seed=args.seed)
    if args.evaluation == "walk":
        return WalkRunConfig(
            args.split, args.index, args.seed, args.steps, args.laps, args.window, memory=not args.no_memory
        )
    if args.evaluation == "trajectories":
        folder = args.folder if args.folder is not None else args.out / "scenes"
        methods = tuple(args.methods)
        return TrajectoriesConfig(folder, methods, args.recovered, args.scale, args.frames, args.seed)
    if args.evaluation == "consistency":
        compared = WorldsConfig(args.split, args.worlds, args.seed)
        return ConsistencyConfig(compared, tuple(args.methods), tuple(args.ways), args.every, args.batch)
    worlds = WorldsConfig(args.split, args.worlds, args.seed, args.length)
    if args.evaluation == "loop":
        return LoopConfig(worlds, args.every, args.batch)
    return RealismConfig(worlds, args.every, seeds=args.seeds, batch=args.batch)


def _measure(args: argparse.Namespace, model: WorldModel, config: Config) -> tuple[dict[str, Any], str]:
    """Run an evaluation; its result and its table."""
    if isinstance(config, FramesConfig):
        result = evaluate_codec(model, config, args.out)
        return result, codec_table(result)
    if isinstance(config, DepthConfig):
        result = evaluate_depth(model, config)
        return result, depth_table(result)
    if isinstance(config, LoopConfig):
        result = evaluate_loop(model, config, args.out)
        return result, loop_table(result)
    if isinstance(config, TrajectoriesConfig):
        if args.folder is None:
            write_scene_sequences(config.folder, args.scenes, config.frames, _SCENE_HW, config.seed)
        result = evaluate_trajectories(model, config, args.out)
        return result, trajectories_table(result)
    if isinstance(config, ConsistencyConfig):
        result = evaluate_consistency(model, config, args.out)
        videos = [Path(name) for name in result["files"] if name.endswith(".mp4")]
        about = (
            f"{config.worlds.worlds} worlds of the {config.worlds.split} split, seed {config.worlds.seed}; "
            f"model {model.config.model_id} ({model.weights_hash[:12]}); means with 95 % intervals over "
            "worlds."
        )
        result["files"].append(str(consistency_page(result, args.out / "consistency.html", about, videos)))
        return result, consistency_table(result)
    if isinstance(config, RealismConfig):
        result = evaluate_realism(model, config, args.out)
        return result, realism_table(result)
    result = evaluate_walk(model, config, args.out)
    return result, walk_table(result)
