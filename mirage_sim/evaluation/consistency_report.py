"""Report of a comparison: a table for the terminal, and a page with tables, plots and videos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mirage_sim.evaluation import page
from mirage_sim.evaluation.config import LABELS
from mirage_sim.evaluation.report import format_table, show

FIGURES: dict[str, tuple[str, int]] = {
    "self_psnr": ("self, dB", 1),
    "self_ssim": ("self, SSIM", 3),
    "self_mse": ("self, MSE", 4),
    "self_lpips": ("self, LPIPS", 3),
    "flip_psnr": ("flipped, dB", 1),
    "closure_psnr": ("closure, dB", 1),
    "closure_ssim": ("closure, SSIM", 3),
    "seen_psnr": ("truth where seen, dB", 1),
    "truth_psnr": ("truth, dB", 1),
    "sharpness": ("sharpness", 2),
    "step_ms": ("ms a step", 0),
    "entries": ("entries", 0),
    "bytes": ("bytes", 0),
}
PLOTTED = {"self_psnr": "dB", "closure_psnr": "dB", "seen_psnr": "dB"}


def consistency_table(result: Mapping[str, Any]) -> str:
    """Lay out the figures of `evaluate_consistency`, one table per way."""
    parts = []
    for way, by_method in result["ways"].items():
        told = present(by_method)
        rows = [
            (
                f"{way}: {LABELS[method]}",
                [show(figures.get(name), digits) for name, (_, digits) in told.items()],
            )
            for method, figures in by_method.items()
        ]
        parts.append(format_table(rows, [label for label, _ in told.values()]))
    return "\n\n".join(parts)


def consistency_page(result: Mapping[str, Any], path: Path, about: str, videos: Sequence[Path]) -> Path:
    """Write the page.

    Args:
        result: Of `evaluate_consistency`.
        path: HTML file.
        about: A sentence on model, worlds and hardware.
        videos: `<way>/<method>.mp4`, and `<way>/truth.mp4`.

    Returns:
        The path.
    """
    parts = [page.paragraph(about)]
    for name, unit in PLOTTED.items():
        groups = {
            way: {method: figures[name] for method, figures in by_method.items() if name in figures}
            for way, by_method in result["ways"].items()
        }
        label = FIGURES[name][0].split(",")[0]
        parts.append(page.picture(page.bars(groups, LABELS, f"{label}, {unit}"), label))
    for way, by_method in result["ways"].items():
        parts += [page.heading(way), page.estimates(by_method, LABELS, present(by_method))]
        minus = result["latent_minus"].get(way, {})
        if minus:
            parts.append(page.paragraph("Latent memory minus the others, paired by world:"))
            parts.append(page.estimates(minus, LABELS, present(minus)))
        if any(name.startswith("lap_") for figures in by_method.values() for name in figures):
            parts.append(page.picture(plot_laps(by_method), "drift against the number of laps"))
        found = {video.stem: video for video in videos if video.parent.name == way}
        shown = {name: found[name] for name in ("truth", *by_method) if name in found}
        if shown:
            parts.append(page.paragraph("World 0:"))
            parts.append(page.videos({LABELS.get(name, name): video for name, video in shown.items()}))
    return page.write_page(path, "Consistency: ways to remember", parts)


def present(by_method: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, int]]:
    """Those of `FIGURES` that at least one method has a value for."""
    return {
        name: told
        for name, told in FIGURES.items()
        if any(figures.get(name, {}).get("worlds", 0) for figures in by_method.values())
    }


def plot_laps(by_method: Mapping[str, Mapping[str, Any]]) -> Figure:
    """Plot how far the n-th time on a way is from the first."""
    figure = Figure(figsize=(6, 3), layout="constrained")
    axes = figure.add_subplot()
    for method, figures in by_method.items():
        laps = sorted(int(name.removeprefix("lap_")) for name in figures if name.startswith("lap_"))
        told = [figures[f"lap_{lap}"] for lap in laps]
        means, errors = [each["mean"] for each in told], [each["ci95"] for each in told]
        axes.errorbar([lap + 1 for lap in laps], means, errors, label=LABELS[method], marker="o")
    axes.set_xlabel("time that the way is gone")
    axes.set_ylabel("PSNR against the first, dB")
    axes.legend(fontsize="small")
    return figure
