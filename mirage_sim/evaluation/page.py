"""Page: the results of a comparison as one HTML file that needs nothing beside it."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from mirage_sim.evaluation.report import show
from mirage_sim.files import whole_file

STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; margin: 1rem 0; }
th, td { padding: .2rem .8rem; text-align: right; border-bottom: 1px solid #ddd; }
th:first-child, td:first-child { text-align: left; }
img, video { max-width: 100%; }
.videos { display: flex; flex-wrap: wrap; }
figure { margin: .3rem; }
figcaption { font-size: small; }
"""


def write_page(path: Path, title: str, parts: Sequence[str]) -> Path:
    """Write a page, whole or not at all.

    Args:
        path: HTML file.
        title: Heading, plain text.
        parts: HTML of the body, see `heading`, `table`, `picture` and `videos`.

    Returns:
        The path.
    """
    told = html.escape(title)
    text = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{told}</title>'
        f"<style>{STYLE}</style></head>\n<body><h1>{told}</h1>\n" + "\n".join(parts) + "\n</body></html>\n"
    )
    with whole_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def heading(text: str) -> str:
    """A heading."""
    return f"<h2>{html.escape(text)}</h2>"


def paragraph(text: str) -> str:
    """A paragraph of plain text."""
    return f"<p>{html.escape(text)}</p>"


def table(header: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> str:
    """A table of plain text; every row is a label and as many cells as there are headers."""
    top = "".join(f"<th>{html.escape(cell)}</th>" for cell in ("", *header))
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in (label, *cells)) + "</tr>"
        for label, cells in rows
    )
    return f"<table><tr>{top}</tr>{body}</table>"


def picture(figure: Figure, text: str) -> str:
    """A plot, inside the page."""
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=100)
    return f'<img alt="{html.escape(text)}" src="{_inline(held.getvalue(), "image/png")}">'


def videos(paths: Mapping[str, Path]) -> str:
    """Video files, inside the page, beside each other with their names; they play together."""
    figures = "".join(
        f'<figure><video autoplay loop muted src="{_inline(path.read_bytes(), "video/mp4")}"></video>'
        f"<figcaption>{html.escape(name)}</figcaption></figure>"
        for name, path in paths.items()
    )
    return f'<div class="videos">{figures}</div>'


def bars(
    groups: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str], ylabel: str, log: bool = False
) -> Figure:
    """Plot estimates as bars with their intervals.

    Args:
        groups: `groups[group][name]`, an estimate.
        labels: Names and what the legend calls them, in order.
        ylabel: Of the axis.
        log: Whether the axis is logarithmic.

    Returns:
        The figure.
    """
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.add_subplot()
    width = 0.8 / max(len(labels), 1)
    for place, (name, label) in enumerate(labels.items()):
        found = [(column, group[name]) for column, group in enumerate(groups.values()) if name in group]
        if found:
            axes.bar(
                [column + (place - 0.5 * (len(labels) - 1)) * width for column, _ in found],
                [value["mean"] for _, value in found],
                width,
                yerr=[value["ci95"] for _, value in found],
                label=label,
            )
    axes.set_xticks(range(len(groups)), list(groups))
    axes.set_ylabel(ylabel)
    if log:
        axes.set_yscale("log")
    axes.legend(fontsize="small")
    return figure


def estimates(
    by_method: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str],
    names: Mapping[str, tuple[str, int]],
) -> str:
    """A table of estimates.

    Args:
        by_method: `by_method[method][figure]`.
        labels: What methods are called.
        names: Figures: what they are called, and digits after the point.

    Returns:
        HTML: one row per method.
    """
    rows = [
        (labels[method], [show(figures.get(name), digits) for name, (_, digits) in names.items()])
        for method, figures in by_method.items()
    ]
    return table([label for label, _ in names.values()], rows)


def _inline(content: bytes, kind: str) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
