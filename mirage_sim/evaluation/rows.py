"""Rows: one line per way, method and world, kept as they come, and what they say together."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mirage_sim.errors import FileFormatError
from mirage_sim.evaluation.report import estimate
from mirage_sim.files import whole_file

Row = dict[str, Any]
_KEYS = ("way", "method", "world")


def summarise(rows: Sequence[Row]) -> dict[str, Any]:
    """Turn rows into figures.

    Args:
        rows: One per way, method and world.

    Returns:
        `ways[way][method][figure]`, estimates over worlds, and `latent_minus[way][method][figure]`, paired
        differences of the latent memory to the others.
    """
    figures: dict[str, dict[str, dict[str, Any]]] = {}
    differences: dict[str, dict[str, dict[str, Any]]] = {}
    for way in dict.fromkeys(row["way"] for row in rows):
        tables: dict[str, dict[int, Row]] = {}
        for row in rows:
            if row["way"] == way:
                tables.setdefault(row["method"], {})[row["world"]] = row
        for method, table in tables.items():
            names = [name for name in next(iter(table.values())) if name not in _KEYS]
            figures.setdefault(way, {})[method] = {
                name: estimate([row[name] for row in table.values()]) for name in names
            }
            latent = tables.get("latent", {})
            both = [(latent[index], row) for index, row in table.items() if index in latent]
            if method != "latent" and both:
                differences.setdefault(way, {})[method] = {
                    name: estimate([a[name] - b[name] for a, b in both]) for name in names
                }
    return {"ways": figures, "latent_minus": differences}


def write_csv(rows: Sequence[Row], path: Path) -> Path:
    """Write one line per way, method and world."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with whole_file(path) as temporary, temporary.open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    return path


class Rows:
    """Rows of a run, appended to a file as they come."""

    def __init__(self, folder: Path, about: dict[str, Any]) -> None:
        """Open or begin a run.

        Args:
            folder: Made if missing.
            about: What must be the same for rows to belong together.

        Raises:
            FileFormatError: If the folder holds rows of another run, or damaged ones.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / "rows.jsonl"
        self.rows: list[Row] = []
        if not self._path.exists():
            self._append([about])
            return
        lines = self._path.read_text().splitlines()
        try:
            head, *self.rows = [json.loads(line) for line in lines]
        except ValueError as error:
            raise FileFormatError(f"{self._path} must hold JSON lines, got {error}: delete it") from error
        if head != json.loads(json.dumps(about)):
            raise FileFormatError(f"{self._path} must belong to {about}, got {head}: name another folder")

    def has(self, way: str, method: str, world: int) -> bool:
        """Whether this was measured."""
        return any((r["way"], r["method"], r["world"]) == (way, method, world) for r in self.rows)

    def add(self, rows: list[Row]) -> None:
        """Keep rows, but for those that are there."""
        fresh = [row for row in rows if not self.has(row["way"], row["method"], row["world"])]
        self._append(fresh)
        self.rows += json.loads(json.dumps(fresh))

    def _append(self, lines: list[dict[str, Any]]) -> None:
        with self._path.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
