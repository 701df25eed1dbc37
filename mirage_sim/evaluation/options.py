"""Options: what evaluations and benchmarks share on the command line, and how they report."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_sim.arguments import (
    check_at_least,
    check_device_name,
    check_world_model,
)
from mirage_sim.model.config import SamplerConfig
from mirage_sim.scenes.splits import SPLITS

if TYPE_CHECKING:
    from mirage_sim.model.world_model import WorldModel


def add_model_options(parser: argparse.ArgumentParser, name: str) -> None:
    """Add --world-model, --device and --out.

    Args:
        parser: Where they go.
        name: Of the command; its default folder is `out/<name>`.
    """
    parser.add_argument(
        "--world-model", default="embedded", help='"embedded" or a folder (default: %(default)s)'
    )
    parser.add_argument("--device", default="cpu", help="where the model runs (default: %(default)s)")
    add_out_option(parser, name)


def add_out_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Add --out."""
    parser.add_argument(
        "--out",
        type=Path,
        default=Path("out") / name,
        help="folder for results.json and pictures (default: %(default)s)",
    )


def add_world_options(parser: argparse.ArgumentParser, worlds: int = 32) -> None:
    """Add --worlds, --split and --seed."""
    parser.add_argument("--worlds", type=int, default=worlds, help="scenes, by index (default: %(default)s)")
    parser.add_argument("--split", choices=sorted(SPLITS), default="test", help="(default: %(default)s)")
    parser.add_argument(
        "--seed", type=int, default=0, help="of poses, paths and noise (default: %(default)s)"
    )


def add_sampling_options(parser: argparse.ArgumentParser, *step_names: str) -> None:
    """Add what can be changed about generation, for ablations; the model's own settings hold otherwise.

    Args:
        parser: Where the options go.
        step_names: Further names for --sampling-steps.
    """
    group = parser.add_argument_group("ablations (the model's own settings otherwise)")
    group.add_argument(
        "--sampling-steps", *step_names, type=int, dest="sampling_steps", help="passes a segment"
    )
    group.add_argument("--known-fraction", type=float, help="share of noise in the start of known cells")
    group.add_argument("--refine-steps", type=int, help="passes through the refiner, 0 for none")
    group.add_argument("--references", type=int, help="earlier views that the generator sees")
    group.add_argument("--glimpses", type=int, help="views whose cells without a place are kept, 0 for none")
    group.add_argument(
        "--no-extras", action="store_true", help="hide offset, scale, view and depth of what is read"
    )


def check_model_options(args: argparse.Namespace) -> None:
    """Check what the options of this module gave.

    Args:
        args: Parsed.

    Raises:
        InputError: If a number is out of its range, or no device has such a name.
        FileFormatError: If there is no such world model.
    """
    if hasattr(args, "world_model"):
        check_world_model("--world-model", args.world_model)
    if hasattr(args, "device"):
        check_device_name("--device", args.device)
    if hasattr(args, "sampling_steps"):
        asked = {
            "steps": args.sampling_steps,
            "known_fraction": args.known_fraction,
            "refine_steps": args.refine_steps,
        }
        SamplerConfig(**{name: value for name, value in asked.items() if value is not None})
        for name in ("references", "glimpses"):
            if getattr(args, name) is not None:
                check_at_least(f"--{name}", getattr(args, name), 0)


def load_model(args: argparse.Namespace) -> WorldModel:
    """Load the model that the arguments name, under the settings that they ask for."""
    from mirage_sim.checkpoints import load_world_model
    from mirage_sim.evaluation.rollout import with_sampling

    model = load_world_model(args.world_model, args.device)
    if not hasattr(args, "sampling_steps"):
        return model
    return with_sampling(
        model,
        args.sampling_steps,
        args.known_fraction,
        args.references,
        not args.no_extras,
        args.refine_steps,
        args.glimpses,
    )


def finish(
    name: str,
    args: argparse.Namespace,
    config: Any,
    model: WorldModel | None,
    result: Mapping[str, Any],
    table: str,
    seconds: float,
) -> dict[str, Any]:
    """Write `results.json` and print the table.

    Args:
        name: Of the command.
        args: Its arguments.
        config: The dataclass that it ran with.
        model: The model measured, if there is one.
        result: Figures, with `aims` and, where there are any, `files`.
        table: Them for people.
        seconds: How long it took.

    Returns:
        For the command line: `figures`, `aims`, `files` and `report`, the path of the JSON.
    """
    from mirage_sim.evaluation.report import aims_table, hardware, plain, write_json

    device = "cpu" if model is None else str(model.device)
    figures = {key: value for key, value in result.items() if key not in ("aims", "files")}
    about: dict[str, Any] = {"command": name, "settings": asdict(config), "hardware": hardware(device)}
    if model is not None:
        about["model"] = {
            "id": model.config.model_id,
            "sha256": model.weights_hash,
            "dtype": str(model.dtype).removeprefix("torch."),
            "sampler": asdict(model.config.sampler),
            "references": model.config.references,
            "extras": model.config.extras,
        }
    told: dict[str, Any] = {"figures": figures, "aims": result["aims"], "files": result.get("files", [])}
    path = write_json(args.out / "results.json", about | {"seconds": seconds} | told)
    print(table)
    if result["aims"]:
        print(f"\n{aims_table(result['aims'])}")
    figures.pop("series", None)  # a thousand numbers belong into the file
    short: dict[str, Any] = plain(told | {"figures": figures})
    return short | {"report": str(path)}
