"""Command line, `convert`: bring weights of the full-size model from one layout of files to another."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mirage_sim.arguments import check_file, path_exists
from mirage_sim.errors import FileFormatError, InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim convert`."""
    parser.add_argument(
        "source", type=Path, help="a diffusers folder, a folder or file of official weights, or one of ours"
    )
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="new or empty folder")
    parser.add_argument("--branch", type=Path, metavar="FILE", help="published weights of the memory branch")
    parser.add_argument("--lora", type=Path, metavar="FILE", help="published weights of low-rank adapters")
    parser.add_argument(
        "--as",
        dest="layout",
        choices=("ours", "official"),
        default="ours",
        help="one folder of ours, or official files (default: %(default)s)",
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Convert weights in their types; text encoder, tokenizer and scheduler are not touched.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        The folder, its layout and files, sizes, and how many weights every part has.

    Raises:
        FileFormatError: If a file is missing, damaged, or does not fit the others.
        InputError: If the folder is taken or cannot be written.
    """
    if not path_exists(args.source):
        raise FileFormatError(f"source must be weights, got {args.source}, which does not exist")
    for name in ("branch", "lora"):
        if getattr(args, name) is not None:
            check_file(f"--{name}", getattr(args, name))
    if path_exists(args.to) and (not args.to.is_dir() or any(args.to.iterdir())):
        raise InputError(f"--to must be a new or empty folder, got {args.to}")
    from mirage_sim.checkpoints import open_checkpoint, save_checkpoint, save_official
    from mirage_sim.folders import visible

    checkpoint = open_checkpoint(args.source, args.branch, args.lora)
    save = save_checkpoint if args.layout == "ours" else save_official
    save(checkpoint, args.to)
    files = [path for path in visible(args.to) if path.is_file()]
    return {
        "folder": str(args.to),
        "layout": args.layout,
        "weights": {
            part: sum(tensor.numel() for tensor in tensors.values())
            for part, tensors in checkpoint.parts.items()
        },
        "condition_channels": checkpoint.config.condition_channels,
        "bytes": sum(path.stat().st_size for path in files),
        "files": [path.name for path in files],
    }
