"""Ablations: the latent memory with one thing changed at a time, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mirage_sim.evaluation.config import AblationsConfig
from mirage_sim.evaluation.consistency import compare
from mirage_sim.evaluation.report import format_table, show
from mirage_sim.evaluation.rows import summarise
from mirage_sim.evaluation.variants import make_variant
from mirage_sim.model.world_model import WorldModel

SHOWN = {
    "self_psnr": ("self, dB", 1),
    "closure_psnr": ("closure, dB", 1),
    "seen_psnr": ("truth where seen, dB", 1),
    "sharpness": ("sharpness", 2),
    "entries": ("entries", 0),
}


def evaluate_ablations(model: WorldModel, config: AblationsConfig, out: Path) -> dict[str, Any]:
    """Measure every variant.

    Args:
        model: The embedded model.
        config: What is compared.
        out: Folder for rows, table and videos; rows already there are kept.

    Returns:
        `ways[way][variant][figure]`, estimates over worlds; `aims` and `files`.

    Raises:
        FileFormatError: If the folder holds rows of another run.
    """
    variants = [make_variant(name, model) for name in config.variants]
    rows, files = compare(variants, model, config.worlds, config.ways, config.every, config.batch, out)
    return {"ways": summarise(rows)["ways"], "aims": [], "files": files}


def ablations_table(result: Mapping[str, Any]) -> str:
    """Lay out the figures of `evaluate_ablations`."""
    parts = []
    for way, by_variant in result["ways"].items():
        rows = [
            (f"{way}: {name}", [show(figures.get(key), digits) for key, (_, digits) in SHOWN.items()])
            for name, figures in by_variant.items()
        ]
        parts.append(format_table(rows, [label for label, _ in SHOWN.values()]))
    return "\n\n".join(parts)
