"""Command line, `info`: what a recording holds."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from mirage_sim.arguments import check_file


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim info`."""
    parser.add_argument("file", type=Path, help="the recording")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Describe a recording.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        Environment, model, sizes, and a line for each episode.

    Raises:
        FileFormatError: If it is no recording.
    """
    check_file("file", args.file)
    from mirage_sim.recording import HDF5Reader

    with HDF5Reader(args.file) as reader:
        names = reader.episodes
        episodes = {name: _describe(reader, name) for name in names}
        described: dict[str, Any] = {
            "file": str(args.file),
            "bytes": args.file.stat().st_size,
            "env_args": json.dumps(reader.env_args, sort_keys=True),
            "camera_convention": reader.root_attrs.get("camera_convention", ""),
            "schema_version": reader.root_attrs["schema_version"],
        }
        described |= {
            name: value
            for name, value in sorted(reader.attrs.items())
            if name not in {"env_args", "env_spec", "total", "observation_space", "action_space"}
        }
        described |= {
            "observations": {key: _shape(reader, key) for key in reader.keys(0)} if names else {},
            "filters": {name: len(members) for name, members in reader.filters.items()},
            "steps": sum(reader.lengths.values()),
            "episodes": episodes,
        }
    return described


def _describe(reader: Any, name: str) -> str:
    """Say in one line how an episode began, went and ended."""
    episode = reader[name]
    end = "cut" if episode.attrs.get("cut") else "terminated" if episode.terminated[-1] else "truncated"
    words = [f"{len(episode)} steps", f"seed {episode.seed}", f"reward {episode.rewards.sum():.4g}", end]
    if "coverage" in episode.extras:
        words.append(f"mean coverage {episode.extras['coverage'].mean():.3f}")
    return ", ".join(words)


def _shape(reader: Any, key: str) -> str:
    """Type and shape of one observation."""
    first = reader.frames(0, key, 0)
    return f"{first.dtype} {list(first.shape)}"
