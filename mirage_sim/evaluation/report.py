"""Report: what every evaluation and benchmark hands back, as JSON, as a table and as pictures."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from mirage_sim.errors import InputError
from mirage_sim.evaluation.metrics import mean_and_interval
from mirage_sim.files import made_folder, whole_file
from mirage_sim.hardware import processor_name
from mirage_sim.recording import write_png

Array = np.ndarray[Any, Any]

_GAP, _HEADER = 2, 12


@dataclass(frozen=True)
class Aim:
    """A figure that the project set itself.

    Attributes:
        name: What is measured.
        value: What came out.
        low: Least value that meets it, or `None`.
        high: Greatest value that meets it, or `None`.
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The aim, the value and whether it is met, for JSON."""
        return {
            "name": self.name,
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "met": self.missed_by == 0.0,
            "missed_by": self.missed_by,
        }

    @property
    def missed_by(self) -> float:
        """Distance to the aim, 0 if it is met and NaN if nothing was measured."""
        if not math.isfinite(self.value):
            return math.nan
        below = 0.0 if self.low is None else self.low - self.value
        above = 0.0 if self.high is None else self.value - self.high
        return max(0.0, below, above)


def estimate(values: Tensor | Sequence[float]) -> dict[str, float]:
    """Mean of one value per world, with its 95 % confidence interval.

    Args:
        values: [N]; NaN where a world has nothing to say.

    Returns:
        `mean`, `ci95` (half-width) and `worlds` (how many had a value).
    """
    known = torch.as_tensor(values, dtype=torch.float64)
    mean, half = mean_and_interval(known)
    return {"mean": mean, "ci95": half, "worlds": float(torch.isfinite(known).sum())}


def estimate_ratio(tops: Sequence[float], bottoms: Sequence[float]) -> dict[str, float]:
    """Ratio of two sums over worlds, with its 95 % confidence interval.

    Worlds weigh as much as their denominator, so one with hardly anything in it cannot carry the figure away,
    as it would in a mean of ratios.

    Args:
        tops: One numerator per world.
        bottoms: One denominator per world, at least 0.

    Returns:
        `mean` (the ratio), `ci95` (half-width, to first order) and `worlds` (those with a denominator).
    """
    top, bottom = (torch.as_tensor(values, dtype=torch.float64) for values in (tops, bottoms))
    top, bottom = top[bottom > 0], bottom[bottom > 0]
    if len(bottom) == 0:
        return {"mean": math.nan, "ci95": math.nan, "worlds": 0.0}
    ratio = float(top.sum() / bottom.sum())
    _, half = mean_and_interval((top - ratio * bottom) / bottom.mean())
    return {"mean": ratio, "ci95": half, "worlds": float(len(bottom))}


def hardware(device: str) -> dict[str, Any]:
    """Name what the figures were taken on.

    Args:
        device: Where the model runs.

    Returns:
        Processor or GPU, cores, threads and the version of torch.
    """
    about: dict[str, Any] = {
        "cpu": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": device,
        "torch": torch.__version__,
    }
    if device.startswith("cuda"):
        about["gpu"] = torch.cuda.get_device_name(device)
    return about


def write_json(path: Path, result: Mapping[str, Any]) -> Path:
    """Write a result, whole or not at all; values that are not finite become null.

    Args:
        path: File; its folder is made if missing.
        result: What JSON can hold.

    Returns:
        The path.
    """
    with made_folder(path.parent), whole_file(path) as temporary:
        temporary.write_text(json.dumps(plain(result), indent=2, allow_nan=False) + "\n")
    return path


def plain(value: Any) -> Any:
    """Turn a result into what strict JSON can hold: no NaN, no tensors, no paths."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, Tensor | np.ndarray | np.generic):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


def format_table(rows: Sequence[tuple[str, Sequence[str]]], header: Sequence[str]) -> str:
    """Lay out a table in fixed width.

    Args:
        rows: A label and its cells, as many as `header` has.
        header: Column names.

    Returns:
        Lines of text.
    """
    whole = [("", list(header)), *[(label, list(cells)) for label, cells in rows]]
    first = max(len(label) for label, _ in whole)
    widths = [max(len(cells[column]) for _, cells in whole) for column in range(len(header))]
    return "\n".join(
        label.ljust(first)
        + "".join("  " + cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
        for label, cells in whole
    )


def show(value: Any, digits: int = 2) -> str:
    """Format a number or an estimate (mean ± half-width) for a table; a dash for nothing."""
    if isinstance(value, Mapping):
        half = value["ci95"]
        text = show(value["mean"], digits)
        return f"{text} ± {half:.{digits}f}" if half is not None and math.isfinite(half) else text
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:.{digits}f}"


def aims_table(aims: Sequence[Mapping[str, Any]]) -> str:
    """Lay out aims, what came out and by how much it was missed."""
    rows = []
    for aim in aims:
        bounds = [f">= {aim['low']:g}"] if aim["low"] is not None else []
        bounds += [f"<= {aim['high']:g}"] if aim["high"] is not None else []
        missed = "met" if aim["met"] else f"missed by {show(aim['missed_by'])}"
        rows.append((aim["name"], [" and ".join(bounds), show(aim["value"]), missed]))
    return format_table(rows, ["aim", "measured", ""])


def write_sheet(
    path: Path, rows: Sequence[Sequence[Array]], header: Sequence[str], labels: Sequence[str]
) -> Path:
    """Write pictures as a grid with a heading per column and a label per row.

    Args:
        path: PNG file; its folder is made if missing.
        rows: Images uint8 [H, W, 3] of one size, as many in each row as `header` has.
        header: Column headings.
        labels: Row labels.

    Returns:
        The path.

    Raises:
        InputError: If the numbers of rows, columns and texts do not fit.
    """
    if not rows or len(labels) != len(rows) or any(len(row) != len(header) for row in rows):
        raise InputError(
            f"rows must be {len(labels)} rows of {len(header)} images, got {[len(row) for row in rows]}"
        )
    height, width = rows[0][0].shape[:2]
    left = 4 + 6 * max(len(label) for label in labels)
    size = (_HEADER + len(rows) * (height + _GAP), left + len(header) * (width + _GAP))
    sheet = Image.new("RGB", (size[1], size[0]), "white")
    pen = ImageDraw.Draw(sheet)
    for column, text in enumerate(header):
        pen.text((left + column * (width + _GAP), 0), text, fill="black", font_size=10)
    for index, (row, label) in enumerate(zip(rows, labels, strict=True)):
        top = _HEADER + index * (height + _GAP)
        pen.text((2, top), label, fill="black", font_size=10)
        for column, picture in enumerate(row):
            sheet.paste(Image.fromarray(picture), (left + column * (width + _GAP), top))
    with made_folder(path.parent):
        return write_png(path, np.asarray(sheet))
