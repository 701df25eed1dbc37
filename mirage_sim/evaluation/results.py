"""Results: the tables of a document, written anew from the `results.json` files of evaluations.

A document marks each table with `<!-- results: NAME -->` before and `<!-- /results -->` behind it; what
stands between is replaced, everything else stays.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from mirage_sim.errors import FileFormatError
from mirage_sim.evaluation.ablations import SHOWN
from mirage_sim.evaluation.config import LABELS
from mirage_sim.evaluation.consistency_report import FIGURES
from mirage_sim.evaluation.counts_report import TABLES as COUNTS
from mirage_sim.evaluation.memory_bench import NO_TIME
from mirage_sim.evaluation.report import show
from mirage_sim.files import whole_file

_MARKED = re.compile(r"(<!-- results: ([\w-]+) -->\n).*?(<!-- /results -->)", re.DOTALL)
Figures = Mapping[str, Any]


def write_results(document: Path, folder: Path) -> list[str]:
    """Write the tables of a document anew.

    Args:
        document: Markdown file with marks.
        folder: Holds `eval-loop/results.json` and so on, as the commands write them under `out/`.

    Returns:
        Names of the tables written.

    Raises:
        FileFormatError: If a mark is unknown, or results are missing or damaged; the document stays then.
    """
    text = document.read_text(encoding="utf-8")
    names: list[str] = []

    def fill(found: re.Match[str]) -> str:
        name = found[2]
        if name not in TABLES:
            raise FileFormatError(f"{document} must mark tables among {sorted(TABLES)}, got {name!r}")
        names.append(name)
        source, lay_out = TABLES[name]
        return f"{found[1]}\n{lay_out(read_figures(folder / source / 'results.json'))}\n\n{found[3]}"

    written = _MARKED.sub(fill, text)
    with whole_file(document) as temporary:
        temporary.write_text(written, encoding="utf-8")
    return names


def read_figures(path: Path) -> Figures:
    """Read the figures of one evaluation, with its aims."""
    try:
        report = json.loads(path.read_text())
        figures: Figures = report["figures"] | {"aims": report["aims"]}
    except (OSError, ValueError, KeyError) as error:
        raise FileFormatError(f"{path} must hold results of an evaluation, got {error!r}") from error
    return figures


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Lay out a table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _loop(path: str, names: Sequence[tuple[str, str, int, str]]) -> Callable[[Figures], str]:
    def lay_out(figures: Figures) -> str:
        told = figures["paths"][path]
        rows = []
        for label, key, digits, aim in names:
            cells = [show(told[who].get(key), digits) for who in ("on", "off", "on_minus_off", "ceiling")]
            rows.append([label, *("" if cell == "-" else cell for cell in cells), aim])
        return markdown(["", "memory on", "memory off", "on − off", "codec's ceiling", "aim"], rows)

    return lay_out


def _realism(figures: Figures) -> str:
    rows = []
    for region, label in (
        ("new", "cells new to the memory"),
        ("imagined", "all that the first frame had not seen"),
    ):
        told = figures["sharpness"][region]
        cells = [show(told[who], 2) for who in ("on", "off", "codec")]
        rows.append([f"sharpness, {label}", *cells, "", "0.8–1.2"])
    for region, label in (
        ("new", "cells new to the memory"),
        ("imagined", "all that the first frame had not seen"),
    ):
        distance = figures["frechet"][region]["pooled"]
        cells = [show(distance[who], 2) for who in ("on", "off", "codec", "truth_halves")]
        rows.append([f"Fréchet distance of pooled codec latents, {label}", *cells, ""])
    spread = figures["diversity"]
    told = f"{show(spread['latent']['mean'])}, {show(spread['pixel']['mean'])}"
    rows.append(["spread over seeds: latents, pixels in [−1, 1]", told, "", "", "", ""])
    header = ["", "memory on", "memory off", "codec", "truth, one half against the other", "aim"]
    return markdown(header, rows)


def _aims(title: str) -> Callable[[Figures], str]:
    """Lay out what was aimed at beside what was measured."""

    def table(figures: Figures) -> str:
        rows = []
        for aim in figures["aims"]:
            bounds = ([f"≥ {aim['low']:g}"] if aim["low"] is not None else []) + (
                [f"≤ {aim['high']:g}"] if aim["high"] is not None else []
            )
            rows.append([aim["name"], show(aim["value"]), ", ".join(bounds)])
        return markdown([title, "measured", "aim"], rows)

    return table


def _step(figures: Figures) -> str:
    names = {"one": "one world", "vector": "a vector of worlds", "latents": "one world, latents only"}
    parts = list(figures["one"]["ms"])
    rows = []
    for name, label in names.items():
        told = figures[name]
        cells = [show(told["ms"][part], 1) for part in parts]
        rows.append([label, *cells, show(told["steps_per_second"], 1), show(told["not_network"])])
    return markdown(["ms, median", *parts, "steps a second", "no network"], rows)


def _read(figures: Figures) -> str:
    sizes = figures["sizes"]
    header = ["memory read against sort-and-scatter", *(f"{row['entries']:,} entries" for row in sizes)]
    return markdown(header, [["time of sort-and-scatter over ours", *(show(row["ratio"]) for row in sizes)]])


def _codec(figures: Figures) -> str:
    cells = [show(figures["psnr"]), show(figures["ssim"], 3), show(figures["sharpness"])]
    return markdown(["codec", "PSNR, dB", "SSIM", "sharpness"], [["true frames there and back", *cells]])


def _depth(figures: Figures) -> str:
    rows = [
        [name, *(show(value, 3) for value in told["all"].values())]
        for name, told in figures["figures"].items()
    ]
    first = next(iter(figures["figures"].values()))["all"]
    return markdown(["depth head", *first], rows)


def _memory(figures: Figures) -> str:
    timed = next(iter(figures["methods"].values()))[0]
    parts = [part for part in timed if part not in NO_TIME]
    rows = []
    for name, chunks in figures["methods"].items():
        last = chunks[-1]
        medians = [median(float(chunk[part]) for chunk in chunks) for part in parts]
        cells = [show(1000.0 * seconds, 2 if seconds < 0.1 else 0) for seconds in medians]
        ratio = figures["ratios"].get(name, {})
        whole = "total" if "total" in parts else "condition"
        rows.append(
            [
                LABELS[name],
                *cells,
                f"{last['cache_mib']:.2f}",
                f"{last['entries_mib']:.2f}",
                f"{last['entries']:,.0f}",
                show(ratio.get(whole), 1),
            ]
        )
    header = [
        "ms a frame, medians over chunks",
        *parts,
        "cache at the end, MiB",
        "of it entries",
        "entries",
        "time over latent memory's",
    ]
    return markdown(header, rows)


def _consistency(figures: Figures) -> str:
    names = ("self_psnr", "flip_psnr", "closure_psnr", "seen_psnr", "truth_psnr", "sharpness", "step_ms")
    rows = []
    for way, by_method in figures["ways"].items():
        for method, told in by_method.items():
            cells = [show(told.get(name), FIGURES[name][1]) for name in names]
            rows.append([way, LABELS[method], *cells, f"{told['bytes']['mean'] / 2**20:.2f}"])
    return markdown(["way", "", *(FIGURES[name][0] for name in names), "MiB"], rows)


def _ablations(figures: Figures) -> str:
    rows = [
        [way, name, *(show(told.get(key), digits) for key, (_, digits) in SHOWN.items())]
        for way, by_variant in figures["ways"].items()
        for name, told in by_variant.items()
    ]
    return markdown(["way", "", *(label for label, _ in SHOWN.values())], rows)


def _moving(figures: Figures) -> str:
    rows = []
    for name, told in figures["filters"].items():
        gain = figures["gain"].get(name, {})
        cells = []
        for place in ("here", "aside"):
            cells += [show(told[f"psnr_{place}"], 1), show(gain.get(f"psnr_{place}"), 1)]
        rows.append([name, *cells, show(told["known_aside"], 2), show(told["entries"], 0)])
    header = ["filters", "same camera, dB", "gain", "0.3 m aside, dB", "gain", "known", "entries"]
    return markdown(header, rows)


def _trajectories(figures: Figures) -> str:
    by_method = figures["methods"]
    wanted = {"psnr_c": 1, "ssim_c": 3, "lpips_c": 3, "psnr": 1, "ssim": 3, "lpips": 3}
    told = {name: d for name, d in wanted.items() if any(each[name]["worlds"] for each in by_method.values())}
    rows = [
        [LABELS[method], *(show(each[name], digits) for name, digits in told.items())]
        for method, each in by_method.items()
    ]
    return markdown(["", *(name.upper() for name in told)], rows)


def _counts(name: str) -> Callable[[Figures], str]:
    title, lay_out = COUNTS[name]

    def table(figures: Figures) -> str:
        header, rows = lay_out(figures)
        return markdown([title, *header], [[label, *cells] for label, cells in rows])

    return table


TABLES: dict[str, tuple[str, Callable[[Figures], str]]] = {
    "loop-out": (
        "eval-loop",
        _loop(
            "out",
            (
                ("self-consistency, first against second visit, dB", "self_psnr", 1, "34, +10"),
                ("the same, SSIM", "self_ssim", 3, ""),
                ("the same, time-flipped as in MIND, dB", "flip_psnr", 1, ""),
                ("closure, last against true first frame, dB", "closure_psnr", 1, "30, +10"),
                ("truth where the first frame had seen it, step 1, dB", "seen_psnr_1", 1, ""),
                ("the same, step 8", "seen_psnr_8", 1, ""),
                ("the same, step 32", "seen_psnr_32", 1, "21"),
            ),
        ),
    ),
    "loop-yaw": (
        "eval-loop",
        _loop(
            "yaw",
            (
                ("self-consistency, dB", "self_psnr", 1, "34, +10"),
                ("the same, SSIM", "self_ssim", 3, ""),
                ("closure, dB", "closure_psnr", 1, "30, +10"),
            ),
        ),
    ),
    "realism": ("eval-realism", _realism),
    "walk": ("eval-walk", _aims("1,000 steps: through one flat and back, twice")),
    "explore": ("eval-explore", _aims("Explore-v1")),
    "codec": ("eval-codec", _codec),
    "depth": ("eval-depth", _depth),
    "step": ("bench-step", _step),
    "read": ("bench-read", _read),
    "memory": ("bench-memory", _memory),
    "memory-full-size": ("bench-memory-full-size", _memory),
    "memory-one-place": ("bench-memory-one-place", _memory),
    "counts": ("bench-counts", lambda figures: "\n\n".join(_counts(name)(figures) for name in COUNTS)),
    **{f"counts-{name}": ("bench-counts", _counts(name)) for name in COUNTS},
    "consistency": ("eval-consistency", _consistency),
    "ablations": ("eval-ablations", _ablations),
    "moving": ("eval-moving", _moving),
    "trajectories": ("eval-trajectories", _trajectories),
}
"""By name: the folder of the results, and how they are laid out."""
