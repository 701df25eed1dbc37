"""Command line, entry: finds the command, imports only what it needs, and turns errors into one line each."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mirage_sim import __version__
from mirage_sim.errors import MirageError, reason

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130


@dataclass(frozen=True)
class Command:
    """Where a command is carried out: a module with `add_arguments(parser)` and `run(args) -> dict`."""

    module: str
    summary: str
    tells: bool = False
    """Whether it prints its results for people itself."""


COMMANDS = {
    "rollout": Command(
        "mirage_sim.cli.rollout", "walk through generated places: HDF5, mp4 and contact sheet"
    ),
    "info": Command("mirage_sim.cli.info", "say what a recording holds"),
    "replay": Command("mirage_sim.cli.replay", "make a video or a contact sheet of a recording, or check it"),
    "repair": Command(
        "mirage_sim.cli.repair", "cut off what a killed recorder left behind, and read everything"
    ),
    "train": Command("mirage_sim.training.stages", "train a world model, one stage at a time"),
    "eval": Command(
        "mirage_sim.evaluation.commands", "measure a world model on places it has never seen", True
    ),
    "bench": Command(
        "mirage_sim.evaluation.bench", "measure a step, a memory read and a chunk; count the full size", True
    ),
    "convert": Command(
        "mirage_sim.cli.convert", "bring weights of the full-size model from one layout of files to another"
    ),
    "encode": Command("mirage_sim.cli.encode", "encode video with known cameras for training at full size"),
    "embed": Command("mirage_sim.cli.embed", "store a prompt's embedding, for machines without its encoder"),
    "results": Command("mirage_sim.cli.results", "write the tables of a document from measured results"),
}


def build_parser(chosen: str | None = None) -> argparse.ArgumentParser:
    """Build the parser; only the chosen command's module is imported, so that help is quick.

    Args:
        chosen: Name of the command whose arguments are needed; none if `None`.

    Returns:
        The parser.
    """
    parser = argparse.ArgumentParser(
        prog="mirage-sim",
        description="Worlds that are generated as you walk, and stay where they are.",
        epilog="--json, anywhere in the line, prints the results as one line of JSON, last.",
    )
    parser.add_argument("--version", action="version", version=f"mirage-sim {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=command.summary,
            description=command.summary,
            epilog="--json prints the results as one line of JSON, last.",
        )
        if name == chosen:
            module = importlib.import_module(command.module)
            module.add_arguments(sub)
            sub.set_defaults(run=module.run)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: Arguments without the program's name; those of the process if `None`.

    Returns:
        Exit code: 0, 1 if a check failed, 2 for an error that was foreseen, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    chosen = next((word for word in words if not word.startswith("-")), None)
    try:
        args = build_parser(chosen).parse_args(words)
        run: Callable[[argparse.Namespace], dict[str, Any] | None] = args.run
        result = run(args) or {}
        if as_json:
            print(json.dumps(result, sort_keys=True, default=_plain))
        elif not COMMANDS[args.command].tells:
            _print_result(result)
        elif "report" in result:
            print(f"report: {result['report']}")
    except MirageError as error:
        print(f"mirage-sim: {' '.join(str(error).split())}", file=sys.stderr)
        return EXIT_ERROR
    except OSError as error:
        if isinstance(error, BrokenPipeError):
            # Whoever read the output has gone; keep the interpreter from complaining when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return EXIT_ERROR
        print(f"mirage-sim: {_system_error(error)}", file=sys.stderr)
        return EXIT_ERROR
    except KeyboardInterrupt:
        print("mirage-sim: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    return 1 if result.get("passed") is False else 0


def _system_error(error: OSError) -> str:
    """What the operating system refused, and of which file."""
    return f"{error.filename}: {reason(error)}" if error.filename is not None else str(error)


def _print_result(result: dict[str, Any]) -> None:
    """Print results for a person."""
    for name, value in result.items():
        if isinstance(value, dict | list) and value:
            print(f"{name}:")
            parts = value.items() if isinstance(value, dict) else enumerate(value)
            for key, part in parts:
                print(f"  {key}: {_short(part)}")
        else:
            print(f"{name}: {_short(value)}")


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """Turn NumPy numbers and arrays into what JSON holds, and paths and the rest into text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


if __name__ == "__main__":
    sys.exit(main())
