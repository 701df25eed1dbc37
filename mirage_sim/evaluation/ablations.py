"""Ablations: the latent memory with one thing changed at a time, in one table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mirage_sim.errors import InputError
from mirage_sim.evaluation.consistency import ALL_WAYS, compare
from mirage_sim.evaluation.methods import check_names
from mirage_sim.evaluation.report import format_table, show
from mirage_sim.evaluation.rows import summarise
from mirage_sim.evaluation.variants import VARIANTS, make_variant
from mirage_sim.evaluation.worlds import WorldsConfig
from mirage_sim.model.world_model import WorldModel

SHOWN = {
    "self_psnr": ("self, dB", 1),
    "closure_psnr": ("closure, dB", 1),
    "seen_psnr": ("truth where seen, dB", 1),
    "sharpness": ("sharpness", 2),
    "entries": ("entries", 0),
}


@dataclass(frozen=True)
class AblationsConfig:
    """What is compared.

    Attributes:
        worlds: Which worlds.
        variants: Names, see `VARIANTS`.
        ways: Names, see `ALL_WAYS`.
        every: Steps between compared poses.
        batch: Worlds generated at once.
    """

    worlds: WorldsConfig
    variants: tuple[str, ...] = tuple(VARIANTS)
    ways: tuple[str, ...] = ("out-32", "yaw")
    every: int = 4
    batch: int = 8

    def __post_init__(self) -> None:
        """Check names and sizes."""
        check_names("variants", self.variants, VARIANTS)
        check_names("ways", self.ways, ALL_WAYS)
        if min(self.every, self.batch) < 1:
            raise InputError(f"every and batch must be at least 1, got {self.every} and {self.batch}")


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
