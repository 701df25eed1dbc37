"""Consistency: every way to remember on the same worlds, ways, seeds and first frames.

Results are kept row by row, so that a run that was interrupted goes on where it was.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mirage_sim.evaluation.config import REENTRY, ConsistencyConfig, WorldsConfig
from mirage_sim.evaluation.loop import LEAST_SEEN, flipped_psnr
from mirage_sim.evaluation.methods import Method, make_method
from mirage_sim.evaluation.metrics import gradient_energy, psnr, ssim
from mirage_sim.evaluation.perceptual import lpips_distance
from mirage_sim.evaluation.revisits import Revisit, cell_depths, make_revisits
from mirage_sim.evaluation.rollout import Rollout, go
from mirage_sim.evaluation.rows import Row, Rows, summarise, write_csv
from mirage_sim.evaluation.variants import TrueDepth
from mirage_sim.evaluation.worlds import seen_before
from mirage_sim.folders import visible
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel
from mirage_sim.recording import write_mp4
from mirage_sim.world import Segment, World

Array = np.ndarray[Any, Any]

"""Re-entry goes out and back in 32 steps, too; at the turn the world is saved, and opened anew."""
_FPS = 12.0


def evaluate_consistency(model: WorldModel, config: ConsistencyConfig, out: Path) -> dict[str, Any]:
    """Measure every method on every way.

    Args:
        model: The embedded model, which all methods share but for their own parts.
        config: What is compared.
        out: Folder for rows, table, videos; rows already there are kept.

    Returns:
        `ways[way][method][figure]`, each an estimate over worlds; `latent_minus[way][method][figure]`, paired
        differences; `files` and no `aims`.

    Raises:
        FileFormatError: If the folder holds rows of another run.
    """
    methods = [make_method(name, model) for name in config.methods]
    rows, files = compare(methods, model, config.worlds, config.ways, config.every, config.batch, out)
    return summarise(rows) | {"aims": [], "files": files}


def compare(
    methods: Sequence[Method],
    model: WorldModel,
    worlds: WorldsConfig,
    ways: Sequence[str],
    every: int,
    batch: int,
    out: Path,
) -> tuple[list[Row], list[str]]:
    """Lead all methods along all ways, and keep the rows as they come.

    Args:
        methods: Ways to remember.
        model: Tells image size and lens, and whose hash rows must have in common.
        worlds: Which worlds.
        ways: Names, see `ALL_WAYS`.
        every: Steps between compared poses.
        batch: Worlds at once.
        out: Folder for rows, table, videos.

    Returns:
        The rows of these methods and ways, and the files written.

    Raises:
        FileFormatError: If the folder holds rows of another run.
    """
    kept = Rows(out, {"worlds": asdict(worlds), "every": every, "model": model.weights_hash})
    hw, files = (model.config.height, model.config.width), []
    bar = tqdm(total=len(ways) * worlds.worlds, desc="compare", unit="walk", disable=None)
    for way in ways:
        plan = "out-32" if way == REENTRY else way
        for first in range(0, worlds.worlds, batch):
            indices = range(first, min(first + batch, worlds.worlds))
            todo = [m for m in methods if not all(kept.has(way, m.name, index) for index in indices)]
            if todo:
                group = list(make_revisits(plan, worlds, model.intrinsics(), hw, every, indices))
                kept.add(_measure_group(group, way, todo, every, out / way if first == 0 else None))
            bar.update(len(indices))
        files += [str(video) for video in visible(out / way, "*.mp4")]
    bar.close()
    names = {method.name for method in methods}
    rows = [row for row in kept.rows if row["way"] in ways and row["method"] in names]
    return rows, [*files, str(write_csv(rows, out / "rows.csv"))]


def _measure_group(
    group: list[Revisit], way: str, methods: Sequence[Method], every: int, videos: Path | None
) -> list[Row]:
    """Lead a batch of worlds along their ways with every method."""
    reenter = (len(group[0].cam2world) - 1) // 2 if way == REENTRY else None
    rows = []
    for method in methods:
        decode = None if videos is not None else set(compared_places(group[0], every))
        if isinstance(method.model.depth_head, TrueDepth):
            stride = method.model.codec.spatial_stride
            method.model.depth_head.begin(torch.stack([cell_depths(world, stride) for world in group]))
        engine, first = begin(method, group)
        began = time.perf_counter()
        rollout = lead(method, engine, first, group, decode, reenter)
        seconds = time.perf_counter() - began
        held = engine.memory.stats()
        for row, world in enumerate(group):
            figures = revisit_scores(world, rollout.frames[row], rollout.known[row], every)
            figures |= {"entries": float(rollout.entries[row]), "bytes": float(held.bytes[row])}
            figures["step_ms"] = 1000.0 * seconds / (len(group) * (len(world.cam2world) - 1))
            rows.append({"way": way, "method": method.name, "world": world.index, **figures})
        if videos is not None:
            videos.mkdir(parents=True, exist_ok=True)
            write_mp4(videos / f"{method.name}.mp4", list(rollout.frames[0]), _FPS)
    if videos is not None:
        write_mp4(videos / "truth.mp4", true_video(group[0]), _FPS)
    return rows


def begin(method: Method, group: Sequence[Revisit]) -> tuple[World, Segment]:
    """Make worlds and show them their first frames."""
    engine = method.worlds(len(group))
    first = engine.reset(
        np.stack([world.frames[0] for world in group]),
        torch.stack([world.cam2world[0] for world in group]),
        torch.stack([world.intrinsics for world in group]),
        [world.noise_seed for world in group],
        depth=torch.stack([world.depth[0] for world in group]),
    )
    return engine, first


def lead(
    method: Method,
    engine: World,
    first: Segment,
    group: Sequence[Revisit],
    decode: set[int] | None = None,
    reenter: int | None = None,
) -> Rollout:
    """Lead worlds along their ways; at the place `reenter` they are saved, and opened from the files."""
    cameras = torch.stack([world.cam2world for world in group])  # [B, P, 4, 4]
    if reenter is None:
        return go(engine, first, cameras, decode)
    before = go(engine, first, cameras[:, : reenter + 1], None if decode is None else decode | {reenter})
    with tempfile.TemporaryDirectory() as folder:
        other = method.worlds(len(group))
        for row in range(len(group)):
            engine.save(Path(folder) / str(row), row)
            other.load(Path(folder) / str(row), row)
    later = None if decode is None else {place - reenter for place in decode}
    turn = replace(first, frames=before.frames[:, -1:], latents=before.latents[:, -1:].to(first.latents))
    after = go(other, turn, cameras[:, reenter:], later)
    return Rollout(
        np.concatenate([before.frames, after.frames[:, 1:]], axis=1),
        torch.cat([before.latents, after.latents[:, 1:]], dim=1),
        torch.cat([before.known, after.known[:, 1:]], dim=1),
        after.entries,
    )


def compared_places(world: Revisit, every: int) -> list[int]:
    """Places whose frames are looked at: those drawn by the simulator, and their later visits."""
    first = set(world.places) | {0}
    later = {place for earlier, place in world.pairs if earlier % every == 0}
    return sorted(first | later | {len(world.cam2world) - 1})


def revisit_scores(world: Revisit, frames: Array, known: Tensor, every: int) -> dict[str, float]:
    """Score one world.

    Args:
        world: What the simulator saw.
        frames: What was generated, uint8 [P, H, W, 3].
        known: Cells that the memory held before, bool [P, h, w].
        every: Steps between compared poses.

    Returns:
        Figures by name; NaN where nothing can be said. PSNR in dB. `self_*` compare later visits with the
        first, without the first frame's pose; `lap_<n>` the n-th return to the first way; `closure_*` the
        last frame with the true first; `truth_psnr` first visits with the simulator, `seen_psnr` likewise
        over what the first frame had seen; `sharpness` is the gradient energy of first visits over the
        truth's.
    """
    images = frames_to_tensor(frames)  # [P, 3, H, W]
    real = frames_to_tensor(world.frames)  # [S, 3, H, W]
    pairs = [(a, b) for a, b in world.pairs if a > 0 and a % every == 0]
    scores = {
        name: float("nan") for name in ("self_psnr", "self_ssim", "self_mse", "self_lpips", "flip_psnr")
    }
    if pairs:
        one, two = (images[list(places)] for places in zip(*pairs, strict=True))
        scores["self_psnr"] = float(psnr(one, two).mean())
        scores["self_ssim"] = float(ssim(one, two).mean())
        scores["self_mse"] = float((one - two).square().mean() / 4.0)
        scores["self_lpips"] = lpips_distance(one, two)
        turn = min(b for _, b in world.pairs) - 1
        if 2 * turn + 1 == len(images):
            seen = [place for place in range(2 * turn + 1) if min(place, 2 * turn - place) % every == 0]
            scores["flip_psnr"] = flipped_psnr(images[seen])
        scores |= lap_scores(images, pairs, turn)
    scores["closure_psnr"] = float(psnr(images[-1], real[0]))
    scores["closure_ssim"] = float(ssim(images[-1], real[0]))
    scores["closure_lpips"] = lpips_distance(images[-1:], real[:1])
    ahead = [row for row, place in enumerate(world.places) if place > 0]
    if ahead:
        at = [world.places[row] for row in ahead]
        scores["truth_psnr"] = float(psnr(images[at], real[ahead]).mean())
        depth, cameras = world.depth[ahead], world.cam2world[at]
        seen_pixels = seen_before(depth, cameras, world.depth[0], world.cam2world[0], world.intrinsics)
        enough = seen_pixels.float().mean(dim=(-2, -1)) >= LEAST_SEEN
        masked = psnr(images[at], real[ahead], seen_pixels)[enough]
        scores["seen_psnr"] = float(masked.mean()) if len(masked) else float("nan")
        scores["sharpness"] = float(gradient_energy(images[at]).sum() / gradient_energy(real[ahead]).sum())
    scores["coverage"] = float(known[1:].float().mean())
    return scores


def lap_scores(images: Tensor, pairs: Sequence[tuple[int, int]], turn: int) -> dict[str, float]:
    """PSNR of every later time a way is gone against the first time, `lap_<n>`; none for a single return."""
    laps: dict[int, list[float]] = {}
    for first, later in pairs:
        laps.setdefault((later - 1) // turn, []).append(float(psnr(images[first], images[later])))
    return {f"lap_{lap}": float(np.mean(values)) for lap, values in laps.items()} if len(laps) > 1 else {}


def true_video(world: Revisit) -> list[Array]:
    """What the simulator saw on the way, the last frame that it drew standing for those between."""
    frames = []
    for place in range(len(world.cam2world)):
        first = min((a for a, b in world.pairs if b == place), default=place)
        frames.append(world.frames[max(row for row, drawn in enumerate(world.places) if drawn <= first)])
    return frames
