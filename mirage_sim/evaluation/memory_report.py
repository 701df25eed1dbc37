"""Report of the memory benchmark: a table, and a plot in the form of the published figure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mirage_sim.evaluation.config import LABELS
from mirage_sim.evaluation.memory_bench import NO_TIME
from mirage_sim.evaluation.published import CACHE_MIB, SECONDS_PER_FRAME
from mirage_sim.evaluation.report import format_table, show

_SHOWN = 5  # chunks in the table: the first four and the last


def memory_table(result: Mapping[str, Any]) -> str:
    """Lay out the figures of `bench_memory`; milliseconds a frame."""
    rows = []
    parts = [part for part in next(iter(result["methods"].values()))[0] if part not in NO_TIME]
    for name, chunks in result["methods"].items():
        for number in sorted({*range(min(len(chunks), _SHOWN - 1)), len(chunks) - 1}):
            chunk = chunks[number]
            cells = [show(1000.0 * chunk[part]) for part in parts]
            rows.append(
                (
                    f"{LABELS[name]}, chunk {number + 1}",
                    [*cells, show(chunk["cache_mib"]), f"{chunk['entries']:,.0f}"],
                )
            )
    told = format_table(rows, [*(f"{part}, ms" for part in parts), "cache, MiB", "entries"])
    ratios = [
        (f"{LABELS[name]} over latent", [show(by_part.get(part)) for part in parts])
        for name, by_part in result["ratios"].items()
    ]
    return f"{told}\n\n{format_table(ratios, parts)}" if ratios else told


def plot_memory(result: Mapping[str, Any], path: Path) -> Path:
    """Plot seconds a frame and cache against the chunk; what was published elsewhere is dashed."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, chunks in result["methods"].items():
        places = range(1, len(chunks) + 1)
        whole = "total" if "total" in chunks[0] else "condition"
        left.plot(places, [chunk[whole] for chunk in chunks], "o-", ms=3, label=LABELS[name])
        if chunks[-1]["cache_mib"] > 0:
            colour = left.lines[-1].get_color()
            right.plot(places, [chunk["cache_mib"] for chunk in chunks], "o-", ms=3, color=colour)
    for axes, published in ((left, SECONDS_PER_FRAME), (right, CACHE_MIB)):
        for shade, (name, values) in enumerate(published.items()):
            label = f"{name}, published, other hardware"
            style = {"linestyle": "--", "linewidth": 1, "color": str(0.2 + 0.2 * shade)}
            axes.plot(range(1, len(values) + 1), values, label=label, **style)
        axes.set_xlabel("chunk")
        axes.set_yscale("log")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    left.set_ylabel("seconds a frame")
    right.set_ylabel("cache, MiB")
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize="x-small")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=100)
    return path
