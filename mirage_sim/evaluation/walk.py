"""Long walk: do pictures, memory and step time hold over a thousand steps around a flat?

The way leads through the flat and back, and then the same again: what the first lap remembers is what the
second one should find, and a memory that is bounded by the place grows no more.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from mirage_sim.errors import StateError
from mirage_sim.evaluation.config import WalkRunConfig
from mirage_sim.evaluation.metrics import gradient_energy
from mirage_sim.evaluation.report import Aim, format_table, show, write_sheet
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import first_seeds, make_scene
from mirage_sim.world import World

Array = np.ndarray[Any, Any]

SERIES = ("sharpness", "mean_red", "mean_green", "mean_blue", "contrast", "entries", "step_ms", "rss_mib")
PICTURES = ("sharpness", "mean_red", "mean_green", "mean_blue", "contrast")


def evaluate_walk(model: WorldModel, config: WalkRunConfig, out: Path | None = None) -> dict[str, Any]:
    """Walk around a flat and keep account of every step.

    Args:
        model: Networks and settings.
        config: Which walk.
        out: Folder for the plot and the contact sheet; none are drawn if `None`.

    Returns:
        `series` (lists over steps, `truth_*` for the simulator's pictures from the same cameras), `ratios`
        (last window over first), `aims` and `files`.
    """
    hw = (model.config.height, model.config.width)
    lens = model.intrinsics()
    series: dict[str, list[float]] = {name: [] for name in SERIES}
    series |= {f"truth_{name}": [] for name in PICTURES}
    every = config.sheet_every or max(1, config.steps // 20)
    rows: list[list[Array]] = []
    with make_scene(first_seeds(config.split, config.index + 1)[-1]) as scene:
        rng = np.random.default_rng([scene.seed, config.seed])
        one_way = -(-config.steps // (2 * config.laps))
        cameras = laps(scene.plan_walk(rng, one_way + 1), config.steps)  # [steps + 1, 4, 4]
        view = scene.render(cameras[0], lens, hw)
        world = World(model, 1, memory=config.memory)
        world.reset(view.rgb[None], cameras[:1], lens, [config.seed], depth=view.depth[None])
        length = world.segment_length
        for start in tqdm(range(1, config.steps + 1, length), desc="walk", unit="segment", disable=None):
            places = torch.arange(start, start + length).clamp(max=config.steps)
            began = time.perf_counter()
            segment = world.step(cameras[None, places])
            took = 1000.0 * (time.perf_counter() - began)
            if segment.frames is None:
                raise StateError("step gave no frames")
            frame = segment.frames[0, -1]
            truth = scene.render(cameras[int(places[-1])], lens, hw).rgb
            _note(series, "", frame)
            _note(series, "truth_", truth)
            series["entries"].append(float(world.memory.stats().entries[0]))
            series["step_ms"].append(took)
            series["rss_mib"].append(resident_mib())
            if (start - 1) // length % max(1, every // length) == 0:
                rows.append([truth, frame])
    result: dict[str, Any] = {
        "series": series,
        "ratios": window_ratios(series, max(1, config.window // length)),
        "aims": [aim.as_dict() for aim in walk_aims(series, max(1, config.window // length))],
        "files": [],
    }
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        plot_walk(series, out / "walk.png")
        labels = [str(1 + index * every) for index in range(len(rows))]
        sheet = write_sheet(out / "walk-frames.png", rows, ["truth", "generated"], labels)
        result["files"] = [str(out / "walk.png"), str(sheet)]
    return result


def laps(way: Tensor, steps: int) -> Tensor:
    """Go along a way and back, again and again.

    Args:
        way: Cameras [L + 1, 4, 4].
        steps: Steps in all.

    Returns:
        [steps + 1, 4, 4].
    """
    turn = len(way) - 1
    place = torch.arange(steps + 1) % (2 * turn)
    return way[turn - (place - turn).abs()]


def picture_statistics(frames: Array) -> dict[str, Tensor]:
    """Sharpness and colour of pictures.

    Args:
        frames: uint8 [N, H, W, 3].

    Returns:
        By name, [N]: gradient energy, channel means and standard deviation, of pixels in [-1, 1].
    """
    images = frames_to_tensor(frames)  # [N, 3, H, W]
    red, green, blue = images.mean(dim=(-2, -1)).unbind(-1)
    deviation = images.flatten(1).std(dim=1, correction=0)
    sharpness = gradient_energy(images)
    return dict(zip(PICTURES, (sharpness, red, green, blue, deviation), strict=True))


def window_ratios(series: dict[str, list[float]], window: int) -> dict[str, float]:
    """Compare the end of a walk with its start.

    Args:
        series: Lists over segments.
        window: Segments at each end.

    Returns:
        Median of the last window over median of the first, by name; for channel means, which may be near 0,
        the difference instead, named `<name>_shift`. `sharpness_to_truth` and `contrast_to_truth` are the
        mean over the last window, relative to the truth's there.
    """
    ratios: dict[str, float] = {}
    for name, values in series.items():
        first, last = float(np.median(values[:window])), float(np.median(values[-window:]))
        if "mean_" in name:
            ratios[f"{name}_shift"] = last - first
        else:
            ratios[name] = last / first if first else float("nan")
    for name in ("sharpness", "contrast"):
        truth = float(np.mean(series[f"truth_{name}"][-window:]))
        ratios[f"{name}_to_truth"] = float(np.mean(series[name][-window:])) / truth if truth else float("nan")
    return ratios


def walk_aims(series: dict[str, list[float]], window: int) -> list[Aim]:
    """What the project set itself for long walks.

    Args:
        series: Lists over segments.
        window: Segments at each end; step time at the end is held against the window that ends around twice
            that far, the hundredth step by default being its middle.
    """
    early = series["step_ms"][window // 2 : window // 2 + window]
    ratios = window_ratios(series, window)
    time_ratio = float(np.median(series["step_ms"][-window:]) / np.median(early))
    half = len(series["entries"]) // 2
    last_half = series["entries"][-1] / series["entries"][half] if series["entries"][half] else float("nan")
    return [
        Aim("step time, last window over around step 100", time_ratio, high=1.1),
        Aim("memory entries, end over halfway", last_half, high=1.25),
        Aim("process memory, last window over first", ratios["rss_mib"], high=1.1),
        Aim("sharpness over truth's, last window", ratios["sharpness_to_truth"], 0.8, 1.2),
        Aim("contrast over truth's, last window", ratios["contrast_to_truth"], 0.8, 1.2),
    ]


def resident_mib() -> float:
    """Memory that this process holds now, in MiB; NaN where the system does not tell."""
    listing = Path("/proc/self/statm")
    if not listing.is_file():
        return float("nan")
    return int(listing.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def plot_walk(series: dict[str, list[float]], path: Path) -> None:
    """Plot all series over steps."""
    figure = Figure(figsize=(8, 10), layout="constrained")
    panels = figure.subplots(6, 1, sharex=True)
    groups = [
        ("gradient energy", ["sharpness", "truth_sharpness"]),
        ("mean colour", ["mean_red", "mean_green", "mean_blue"]),
        ("contrast", ["contrast", "truth_contrast"]),
        ("memory entries", ["entries"]),
        ("step, ms", ["step_ms"]),
        ("process, MiB", ["rss_mib"]),
    ]
    colours = {"mean_red": "tab:red", "mean_green": "tab:green", "mean_blue": "tab:blue"}
    for panel, (label, names) in zip(panels, groups, strict=True):
        for name in names:
            told = "truth" if name.startswith("truth_") else name.removeprefix("mean_")
            style = "--" if name.startswith("truth_") else "-"
            panel.plot(series[name], style, label=told, color=colours.get(name), linewidth=0.8)
            if name in colours:
                panel.plot(series[f"truth_{name}"], "--", color=colours[name], linewidth=0.5)
        panel.set_ylabel(label)
        if len(names) > 1:
            panel.legend(loc="upper right", fontsize="small")
    panels[-1].set_xlabel("segment")
    figure.savefig(path, dpi=100)


def walk_table(result: dict[str, Any]) -> str:
    """Lay out the ratios of `evaluate_walk`."""
    return format_table(
        [(name, [show(value, 3)]) for name, value in result["ratios"].items()], ["last / first"]
    )


def _note(series: dict[str, list[float]], prefix: str, frame: Array) -> None:
    for name, value in picture_statistics(frame[None]).items():
        series[prefix + name].append(float(value[0]))
