"""Loop: does a place that was left look the same when it is seen again, and is it the true place?

Each world is walked out and back through the same poses, and turned away and back, once with the memory and
once without, from the same weights and seeds.

Source: the time-flipped comparison follows the memory benchmark MIND; the rest, ours.
"""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mirage_sim.evaluation.config import LoopConfig
from mirage_sim.evaluation.metrics import psnr, ssim
from mirage_sim.evaluation.report import Aim, estimate, format_table, show, write_sheet
from mirage_sim.evaluation.rollout import Rollout, reconstruct, roll_out
from mirage_sim.evaluation.worlds import TestWorld, batches, make_test_worlds, seen_before, warp_first
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel

Array = np.ndarray[Any, Any]
Scores = dict[str, list[float]]

ACCURACY_STEPS = (1, 8, 16, 32)
LEAST_SEEN = 0.01
"""Share of a picture that the first frame must have seen for its accuracy to count."""
PATHS = ("out", "yaw")


def evaluate_loop(model: WorldModel, config: LoopConfig, out: Path | None = None) -> dict[str, Any]:
    """Measure self-consistency, closure and accuracy with memory on and off.

    Two ceilings stand beside: the codec's, and for accuracy the true first frame warped with true depths.

    Args:
        model: Networks and settings.
        config: Which worlds.
        out: Folder for a contact sheet per path; none are drawn if `None`.

    Returns:
        `paths[path][on|off|ceiling|warped][figure]`, each an estimate over worlds; `aims`; `files`.
    """
    hw = (model.config.height, model.config.width)
    scores: dict[tuple[str, str], Scores] = {}
    sheets: dict[str, list[list[Array]]] = defaultdict(list)
    stream = make_test_worlds(config.worlds, model.intrinsics(), hw)
    bar = tqdm(total=config.worlds.worlds, desc="loop", unit="world", disable=None)
    for group in batches(stream, config.batch):
        for path in PATHS:
            places = decoded_places(len(group[0].paths[path].frames), config.every)
            pair = {
                name: roll_out(model, group, path, memory=name == "on", decode=places)
                for name in ("on", "off")
            }
            for row, world in enumerate(group):
                for name, rollout in pair.items():
                    table = scores.setdefault((path, name), defaultdict(list))
                    _collect(table, visit_scores(world, path, rollout, row, config.every))
                ceiling = scores.setdefault((path, "ceiling"), defaultdict(list))
                _collect(ceiling, codec_ceiling(model, world, path))
                warped = scores.setdefault((path, "warped"), defaultdict(list))
                places_ahead = accuracy_steps(len(world.paths[path].frames))
                first = warp_first(world.paths[path], places_ahead, world.intrinsics)
                _collect(warped, accuracy(world, path, first))
                if len(sheets[path]) < config.sheet_worlds:
                    sheets[path].append(sheet_row(world, path, {k: v.frames[row] for k, v in pair.items()}))
        bar.update(len(group))
    bar.close()
    figures: dict[str, dict[str, Any]] = {path: {} for path in PATHS}
    for (path, name), table in scores.items():
        figures[path][name] = {key: estimate(values) for key, values in table.items()}
    for path in PATHS:
        on, off = scores[path, "on"], scores[path, "off"]
        figures[path]["on_minus_off"] = {
            key: estimate(torch.tensor(on[key]) - torch.tensor(off[key])) for key in on
        }
    drawn = []
    if out is not None:
        for path, rows in sheets.items():
            labels = [str(index) for index in range(len(rows))]
            drawn.append(str(write_sheet(out / f"loop-{path}.png", rows, sheet_header(), labels)))
    return {"paths": figures, "aims": [aim.as_dict() for aim in loop_aims(figures)], "files": drawn}


def decoded_places(length: int, every: int) -> set[int]:
    """Places of a way there and back (`length` poses out) whose frames are looked at."""
    turn = length - 1
    out = {*range(0, length, every), *accuracy_steps(length), turn // 2, turn}
    return out | {2 * turn - place for place in out}


def visit_scores(world: TestWorld, path: str, rollout: Rollout, row: int, every: int = 1) -> dict[str, float]:
    """Score one world's walk there and back.

    Args:
        world: What the simulator saw.
        path: Which way was walked.
        rollout: What was generated.
        row: The world's place in the rollout.
        every: Steps between compared poses.

    Returns:
        Figures by name; NaN where nothing can be said. PSNR in dB, `coverage` the mean share of known cells,
        `entries` the tokens held at the end.
    """
    truth = world.paths[path]
    length = len(truth.frames)  # out, the first frame included
    frames = frames_to_tensor(rollout.frames[row])  # [2 P - 1, 3, H, W]
    first, second = frames[:length], frames[length - 1 :].flip(0)  # [P, 3, H, W] each, pose by pose
    compared = list(range(0, length - 1, every))  # the turning point is seen once
    twice = [place for place in compared if place > 0]  # generated both times
    half = (length - 1) // 2
    video = torch.cat([first[compared], first[-1:], second[compared].flip(0)])
    real = frames_to_tensor(truth.frames[:1])[0]  # [3, H, W]
    scores = {
        "self_psnr": float(psnr(first[twice], second[twice]).mean()) if twice else float("nan"),
        "self_ssim": float(ssim(first[twice], second[twice]).mean()) if twice else float("nan"),
        "self_psnr_half": float(psnr(first[half], second[half])),
        "flip_psnr": flipped_psnr(video),
        "closure_psnr": float(psnr(frames[-1], real)),
        "closure_ssim": float(ssim(frames[-1], real)),
    }
    scores |= accuracy(world, path, first[accuracy_steps(length)])
    scores["coverage"] = float(rollout.known[row, 1:].float().mean())
    scores["entries"] = float(rollout.entries[row])
    return scores


def accuracy(world: TestWorld, path: str, images: Tensor) -> dict[str, float]:
    """Compare pictures with the truth.

    Args:
        world: What the simulator saw.
        path: Which way.
        images: Pictures at the `accuracy_steps` of the way, [S, 3, H, W].

    Returns:
        `psnr_<step>` over the whole picture, and `seen_psnr_<step>` over the pixels that the first frame had
        seen, NaN where these are too few.
    """
    truth = world.paths[path]
    steps = accuracy_steps(len(truth.frames))
    seen = seen_before(
        truth.depth[steps], truth.cam2world[steps], truth.depth[0], truth.cam2world[0], world.intrinsics
    )  # [S, H, W]
    enough = seen.float().mean(dim=(-2, -1)) >= LEAST_SEEN  # [S]
    real = frames_to_tensor(truth.frames[steps])
    masked = torch.where(enough, psnr(images, real, seen), torch.nan)
    scores = {f"seen_psnr_{step}": float(value) for step, value in zip(steps, masked, strict=True)}
    return scores | {
        f"psnr_{step}": float(value) for step, value in zip(steps, psnr(images, real), strict=True)
    }


def accuracy_steps(length: int) -> list[int]:
    """Steps at which accuracy is told on a way of `length` poses: 1, 8, 16, 32 and the last."""
    return sorted({step for step in ACCURACY_STEPS if step < length} | {length - 1})


def flipped_psnr(frames: Tensor) -> float:
    """Compare a there-and-back video with itself played backwards, as one signal.

    Args:
        frames: [2 P - 1, 3, H, W] in [-1, 1].

    Returns:
        Decibels of the mean squared error over all frames but the turning point, capped at 60.

    Source: MIND's time-flipped comparison.
    """
    half = len(frames) // 2
    ahead, back = frames[:half], frames.flip(0)[:half]
    return float(psnr(ahead.movedim(0, -3).flatten(-3, -2), back.movedim(0, -3).flatten(-3, -2)))


def codec_ceiling(model: WorldModel, world: TestWorld, path: str) -> dict[str, float]:
    """Score true frames sent through the codec: what no memory of latents can surpass.

    Args:
        model: Whose codec is used.
        world: What the simulator saw.
        path: Which way.

    Returns:
        `closure_*` for the first frame, `psnr_<step>` and `seen_psnr_<step>` as in `visit_scores`, and
        `self_*`: a frame coded twice against the frame coded once, the loss of one more round through the
        codec, which a memory of latents avoids.
    """
    truth = world.paths[path]
    steps = accuracy_steps(len(truth.frames))
    once = reconstruct(model, truth.frames[[0, *steps]])
    twice = reconstruct(model, once)
    first, second = frames_to_tensor(once), frames_to_tensor(twice)
    real = frames_to_tensor(truth.frames[:1])[0]
    scores = {
        "self_psnr": float(psnr(first, second).mean()),
        "self_ssim": float(ssim(first, second).mean()),
        "closure_psnr": float(psnr(first[0], real)),
        "closure_ssim": float(ssim(first[0], real)),
    }
    return scores | accuracy(world, path, first[1:])


def sheet_header() -> list[str]:
    """Column headings of the contact sheet."""
    columns = ["truth first", "truth half", "truth turn"]
    for name in ("on", "off"):
        columns += [f"{name}: out half", f"{name}: turn", f"{name}: back half", f"{name}: back first"]
    return columns


def sheet_row(world: TestWorld, path: str, frames: dict[str, Array]) -> list[Array]:
    """Pictures of one world, in the order of `sheet_header`."""
    truth = world.paths[path].frames
    turn = len(truth) - 1
    half = turn // 2
    row = [truth[0], truth[half], truth[turn]]
    for name in ("on", "off"):
        row += [frames[name][place].copy() for place in (half, turn, 2 * turn - half, 2 * turn)]
    return row


def loop_aims(figures: dict[str, dict[str, Any]]) -> list[Aim]:
    """What the project set itself for loops."""
    aims = []
    for path in PATHS:
        on, gain = figures[path]["on"], figures[path]["on_minus_off"]
        aims += [
            Aim(f"{path}: self-consistency, dB", on["self_psnr"]["mean"], low=34.0),
            Aim(f"{path}: self-consistency over memory off, dB", gain["self_psnr"]["mean"], low=10.0),
            Aim(f"{path}: closure, dB", on["closure_psnr"]["mean"], low=30.0),
            Aim(f"{path}: closure over memory off, dB", gain["closure_psnr"]["mean"], low=10.0),
        ]
    if "seen_psnr_32" in figures["out"]["on"]:
        aims.append(
            Aim("out: truth after 32 steps, dB", figures["out"]["on"]["seen_psnr_32"]["mean"], low=21.0)
        )
    return aims


def loop_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_loop`."""
    parts = []
    for path, by_name in result["paths"].items():
        rows = []
        for key in by_name["on"]:
            cells = [by_name[name].get(key) for name in ("on", "off", "on_minus_off", "ceiling", "warped")]
            rows.append((f"{path}: {key}", ["-" if cell is None else show(cell) for cell in cells]))
        parts.append(format_table(rows, ["memory on", "memory off", "difference", "codec", "warped"]))
    return "\n\n".join(parts)


def _collect(table: Scores, values: dict[str, float]) -> None:
    for key, value in values.items():
        table[key].append(value)
