"""The `eval` commands: arguments in, JSON, pictures and a printed table out.

Arguments are checked before torch, or the module of an evaluation, is imported.
"""

from __future__ import annotations

import argparse
import importlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_sim.arguments import check_folder, made_for
from mirage_sim.evaluation.config import (
    ALL_WAYS,
    LABELS,
    VARIANT_NAMES,
    AblationsConfig,
    ConsistencyConfig,
    DepthConfig,
    ExploreRunConfig,
    FramesConfig,
    LoopConfig,
    MovingConfig,
    RealismConfig,
    TrajectoriesConfig,
    WalkRunConfig,
    WorldsConfig,
)
from mirage_sim.evaluation.options import (
    add_model_options,
    add_sampling_options,
    add_world_options,
    check_model_options,
    finish,
    load_model,
)
from mirage_sim.scenes.splits import SPLITS, first_seeds

if TYPE_CHECKING:
    from mirage_sim.model.world_model import WorldModel

_SCENE_HW = (180, 320)  # of the frames that are written for trajectories

Parser = argparse.ArgumentParser
Args = argparse.Namespace
Result = dict[str, Any]


@dataclass(frozen=True)
class Evaluation:
    """One `eval` command.

    Attributes:
        summary: What help says.
        options: Adds its arguments, beside those of the model.
        config: Turns arguments into a config, which checks them before anything is loaded.
        run: Carries it out; `None` where `evaluate_<name>` of `mirage_sim.evaluation.<name>` does so.
    """

    summary: str
    options: Callable[[Parser], None]
    config: Callable[[Args], Any]
    run: Callable[[WorldModel, Any, Args], Result] | None = None


def _number(parser: Parser, name: str, default: float, text: str) -> None:
    parser.add_argument(name, type=type(default), default=default, help=f"{text} (default: {default})")


def _names(parser: Parser, name: str, default: tuple[str, ...]) -> None:
    parser.add_argument(name, nargs="+", default=list(default), help="(default: %(default)s)")


def _codec_options(parser: Parser) -> None:
    _number(parser, "--frames", 8, "views of each scene")
    add_world_options(parser)


def _depth_options(parser: Parser) -> None:
    _number(parser, "--pairs", 8, "pairs of views of each scene")
    add_world_options(parser)


def _out_options(parser: Parser, every: int) -> None:
    _number(parser, "--every", every, "steps between the frames looked at")
    _number(parser, "--length", 32, "steps of the way out")
    _number(parser, "--batch", 8, "worlds at once")
    add_sampling_options(parser, "--steps")
    add_world_options(parser)


def _loop_options(parser: Parser) -> None:
    _out_options(parser, 2)


def _realism_options(parser: Parser) -> None:
    _number(parser, "--seeds", 4, "seeds for diversity")
    _out_options(parser, 4)


def _walk_options(parser: Parser) -> None:
    _number(parser, "--steps", 1000, "steps of the walk")
    _number(parser, "--index", 0, "scene of the split")
    _number(parser, "--laps", 2, "times through the flat and back")
    _number(parser, "--window", 100, "steps compared at each end")
    parser.add_argument("--no-memory", action="store_true", help="walk without the memory")
    parser.add_argument("--split", choices=sorted(SPLITS), default="test", help="(default: %(default)s)")
    _number(parser, "--seed", 0, "of the way and the noise")
    add_sampling_options(parser)


def _consistency_options(parser: Parser) -> None:
    _names(parser, "--methods", tuple(LABELS))
    _names(parser, "--ways", ALL_WAYS)
    _compared_options(parser)


def _ablations_options(parser: Parser) -> None:
    _names(parser, "--variants", VARIANT_NAMES)
    _names(parser, "--ways", AblationsConfig.ways)
    _compared_options(parser)


def _compared_options(parser: Parser) -> None:
    _number(parser, "--every", 4, "steps between compared poses")
    _number(parser, "--batch", 8, "worlds at once")
    add_world_options(parser)


def _moving_options(parser: Parser) -> None:
    _number(parser, "--steps", 24, "views that are written")
    add_world_options(parser)


def _trajectories_options(parser: Parser) -> None:
    parser.add_argument(
        "--folder",
        type=Path,
        help="holds <name>.txt and frames <name>/<timestamp>.png (default: test scenes, written to --out)",
    )
    _names(parser, "--methods", TrajectoriesConfig.methods)
    parser.add_argument("--recovered", type=Path, help="recovered cameras, <name>-<method>.txt")
    _number(parser, "--scale", 1.0, "metres of a file's unit")
    _number(parser, "--frames", 64, "of a file at most")
    _number(parser, "--scenes", 8, "test scenes to write, without --folder")
    _number(parser, "--seed", 0, "of walks and noise")


def _explore_options(parser: Parser) -> None:
    defaults = ExploreRunConfig()
    _number(parser, "--worlds", defaults.worlds, "flats, by index")
    parser.add_argument(
        "--split", choices=sorted(SPLITS), default=defaults.split, help="(default: %(default)s)"
    )
    _number(parser, "--seed", defaults.seed, "of starts, noise and random actions")
    _number(parser, "--steps", defaults.steps, "steps of a walk, and of turning in place")
    _number(parser, "--random-steps", defaults.random_steps, "random actions in each flat")
    parser.add_argument("--no-collide", action="store_true", help="let the agent pass through everything")


def _explore_config(args: Args) -> ExploreRunConfig:
    numbers = (args.split, args.worlds, args.seed, args.steps, args.random_steps)
    return ExploreRunConfig(*numbers, collide=not args.no_collide)


def _worlds(args: Args, steps: int = WorldsConfig.steps) -> WorldsConfig:
    return WorldsConfig(args.split, args.worlds, args.seed, steps)


def _walk_config(args: Args) -> WalkRunConfig:
    named = (args.split, args.index, args.seed, args.steps, args.laps, args.window)
    return WalkRunConfig(*named, memory=not args.no_memory)


def _trajectories_config(args: Args) -> TrajectoriesConfig:
    first_seeds("test", args.scenes, "scenes")
    for name in ("folder", "recovered"):
        if getattr(args, name) is not None:
            check_folder(f"--{name}", getattr(args, name))
    folder = args.folder if args.folder is not None else args.out / "scenes"
    methods = tuple(args.methods)
    return TrajectoriesConfig(folder, methods, args.recovered, args.scale, args.frames, args.seed)


def _run_depth(model: WorldModel, config: DepthConfig, args: Args) -> Result:
    from mirage_sim.evaluation.depth import evaluate_depth

    return evaluate_depth(model, config)


def _run_explore(model: WorldModel, config: ExploreRunConfig, args: Args) -> Result:
    from mirage_sim.evaluation.explore import evaluate_explore

    return evaluate_explore(model, config)


def _run_consistency(model: WorldModel, config: ConsistencyConfig, args: Args) -> Result:
    from mirage_sim.evaluation.consistency import evaluate_consistency
    from mirage_sim.evaluation.consistency_report import consistency_page

    result = evaluate_consistency(model, config, args.out)
    videos = [Path(name) for name in result["files"] if name.endswith(".mp4")]
    about = (
        f"{config.worlds.worlds} worlds of the {config.worlds.split} split, seed {config.worlds.seed}; "
        f"model {model.config.model_id} ({model.weights_hash[:12]}); means with 95 % intervals over worlds."
    )
    result["files"].append(str(consistency_page(result, args.out / "consistency.html", about, videos)))
    return result


def _run_trajectories(model: WorldModel, config: TrajectoriesConfig, args: Args) -> Result:
    from mirage_sim.evaluation.trajectories import evaluate_trajectories, write_scene_sequences

    if args.folder is None:
        write_scene_sequences(config.folder, args.scenes, config.frames, _SCENE_HW, config.seed)
    return evaluate_trajectories(model, config, args.out)


EVALUATIONS = {
    "codec": Evaluation(
        "reconstruction of true frames",
        _codec_options,
        lambda args: FramesConfig(args.split, args.worlds, args.frames, args.seed),
    ),
    "depth": Evaluation(
        "the depth head on true frames",
        _depth_options,
        lambda args: DepthConfig(args.split, args.worlds, args.pairs, seed=args.seed),
        _run_depth,
    ),
    "loop": Evaluation(
        "out and back, memory on and off",
        _loop_options,
        lambda args: LoopConfig(_worlds(args, args.length), args.every, args.batch),
    ),
    "realism": Evaluation(
        "sharpness, distances and diversity of what was imagined",
        _realism_options,
        lambda args: RealismConfig(
            _worlds(args, args.length), args.every, seeds=args.seeds, batch=args.batch
        ),
    ),
    "walk": Evaluation("a long walk around a flat", _walk_options, _walk_config),
    "consistency": Evaluation(
        "every way to remember on the same ways",
        _consistency_options,
        lambda args: ConsistencyConfig(
            _worlds(args), tuple(args.methods), tuple(args.ways), args.every, args.batch
        ),
        _run_consistency,
    ),
    "ablations": Evaluation(
        "the latent memory with one thing changed at a time",
        _ablations_options,
        lambda args: AblationsConfig(
            _worlds(args), tuple(args.variants), tuple(args.ways), args.every, args.batch
        ),
    ),
    "moving": Evaluation(
        "what filters keep out of the memory where things move",
        _moving_options,
        lambda args: MovingConfig(args.split, args.worlds, args.steps, seed=args.seed),
    ),
    "explore": Evaluation(
        "what exploring earns, and whether surfaces hold the agent",
        _explore_options,
        _explore_config,
        _run_explore,
    ),
    "trajectories": Evaluation(
        "along camera files of RealEstate10K's format, and back",
        _trajectories_options,
        _trajectories_config,
        _run_trajectories,
    ),
}


def add_arguments(parser: Parser) -> None:
    """Add the evaluations.

    Args:
        parser: Of `mirage-sim eval`.
    """
    kinds = parser.add_subparsers(dest="evaluation", metavar="WHAT", required=True)
    for name, evaluation in EVALUATIONS.items():
        each = kinds.add_parser(name, help=evaluation.summary, description=evaluation.summary)
        evaluation.options(each)
        add_model_options(each, f"eval-{name}")


def run(args: Args) -> Result:
    """Carry out an evaluation.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Its figures, see `mirage_sim.evaluation.options.finish`.
    """
    evaluation = EVALUATIONS[args.evaluation]
    config = evaluation.config(args)
    check_model_options(args)
    with made_for("--out", args.out):
        began = time.perf_counter()
        model = load_model(args)
        run_it = evaluation.run or _whole(args.evaluation)
        result = run_it(model, config, args)
        seconds = time.perf_counter() - began
        table = _table(args.evaluation)(result)
        return finish(f"eval {args.evaluation}", args, config, model, result, table, seconds)


def _whole(name: str) -> Callable[[WorldModel, Any, Args], Result]:
    """`evaluate_<name>` of an evaluation's module."""
    evaluate = getattr(importlib.import_module(f"mirage_sim.evaluation.{name}"), f"evaluate_{name}")
    return lambda model, config, args: evaluate(model, config, args.out)


def _table(name: str) -> Callable[[Result], str]:
    """`<name>_table`, which lays figures out."""
    module = "consistency_report" if name == "consistency" else name
    table: Callable[[Result], str] = getattr(
        importlib.import_module(f"mirage_sim.evaluation.{module}"), f"{name}_table"
    )
    return table
