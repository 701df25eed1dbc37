"""Realism: does what was imagined look like a room? A blur is easily consistent: this stands beside the loop.

Two regions of the pictures are judged: cells that the memory did not know when the frame was drawn ("new"),
and all that the first frame had not seen ("imagined"), which also holds what was drawn some steps before. The
same cells are judged with the memory off and in the codec's reconstruction of the truth, and the truth of one
half of the worlds stands against the other half's, so that each distance has a floor to be read against.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from itertools import combinations, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mirage_sim.evaluation.config import RealismConfig
from mirage_sim.evaluation.metrics import frechet_distance, gradient_sums
from mirage_sim.evaluation.report import Aim, estimate, estimate_ratio, format_table, show, write_sheet
from mirage_sim.evaluation.rollout import decode_latents, encode_frames, roll_out
from mirage_sim.evaluation.worlds import TestWorld, batches, make_test_worlds, seen_before
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel

Array = np.ndarray[Any, Any]

KINDS = ("on", "off", "codec")
REGIONS = ("new", "imagined")
FEATURES = ("cell", "patch", "pooled")
LEAST_SHARE = 0.05
"""Share of a frame's cells that must be in the region for its pooled features to count."""


def evaluate_realism(model: WorldModel, config: RealismConfig, out: Path | None = None) -> dict[str, Any]:
    """Measure sharpness, Fréchet distances and diversity of what the memory did not know.

    Args:
        model: Networks and settings.
        config: What is judged.
        out: Folder for the contact sheet; none is drawn if `None`.

    Returns:
        `sharpness[region][kind]` (ratio to the truth), `frechet[region][feature][kind]`,
        `share[region]` (of the cells), `diversity`, `aims` and `files`.
    """
    hw = (model.config.height, model.config.width)
    gradients: dict[tuple[str, str], list[float]] = defaultdict(list)
    features: dict[tuple[str, str, str], list[Tensor]] = defaultdict(list)
    shares: dict[str, list[float]] = defaultdict(list)
    latent_spread: list[float] = []
    pixel_spread: list[float] = []
    rows: list[list[Array]] = []
    bar = tqdm(total=config.worlds.worlds, desc="realism", unit="world", disable=None)
    for group in batches(make_test_worlds(config.worlds, model.intrinsics(), hw), config.batch):
        judged = [judge_path(model, group, path, config.every) for path in ("out", "yaw")]
        for row in range(len(group)):
            paths = [each[row] for each in judged]
            for region in REGIONS:
                for kind, energy in world_gradients(paths, region).items():
                    gradients[region, kind].append(energy)
                shares[region].append(
                    float(torch.cat([path.regions[region] for path in paths]).float().mean())
                )
                for path, kind in product(paths, ("truth", *KINDS)):
                    for feature, values in latent_features(path.latents[kind], path.regions[region]).items():
                        features[region, feature, kind].append(values)
            if len(rows) < config.sheet_worlds:
                rows.append([path.frames[kind][-1] for path in paths for kind in ("truth", *KINDS)])
        for world in group[: max(0, config.diversity_worlds - group[0].index)]:
            latent, pixel = seed_spread(model, world, config.seeds)
            latent_spread.append(latent)
            pixel_spread.append(pixel)
        bar.update(len(group))
    bar.close()
    result: dict[str, Any] = {
        "sharpness": {
            r: {kind: estimate_ratio(gradients[r, kind], gradients[r, "truth"]) for kind in KINDS}
            for r in REGIONS
        },
        "frechet": {r: {name: _distances(r, name, features) for name in FEATURES} for r in REGIONS},
        "share": {region: estimate(shares[region]) for region in REGIONS},
        "diversity": {"latent": estimate(latent_spread), "pixel": estimate(pixel_spread)},
    }
    aims = [
        Aim(f"sharpness over truth, {region} cells", result["sharpness"][region]["on"]["mean"], 0.8, 1.2)
        for region in REGIONS
    ]
    files = []
    if out is not None:
        header = [f"{path}: {name}" for path in ("out", "yaw") for name in ("truth", *KINDS)]
        labels = [str(index) for index in range(len(rows))]
        files.append(str(write_sheet(out / "realism.png", rows, header, labels)))
    return result | {"aims": [aim.as_dict() for aim in aims], "files": files}


@dataclass(frozen=True)
class Judged:
    """Frames of one world that are judged; every field has F of them.

    Attributes:
        regions: Cells that are judged, bool [F, h, w] each: "new" and "imagined".
        frames: uint8 [F, H, W, 3] of "truth", "codec" (the truth coded), "on" and "off".
        latents: float32 [F, C, h, w], those frames coded.
    """

    regions: dict[str, Tensor]
    frames: dict[str, Array]
    latents: dict[str, Tensor]


def judge_path(model: WorldModel, worlds: list[TestWorld], path: str, every: int) -> list[Judged]:
    """Walk worlds one way and gather every few frames, as generated, as they should be and as coded.

    Args:
        model: Networks and settings.
        worlds: B worlds.
        path: Which way.
        every: Steps between frames.

    Returns:
        One per world. All pictures, the generated ones too, are coded from their 8-bit frames.
    """
    places = list(range(every, len(worlds[0].paths[path].frames), every)) or [1]
    on, off = (roll_out(model, worlds, path, memory, back=False, decode=places) for memory in (True, False))
    judged = []
    for row, world in enumerate(worlds):
        frames = {"truth": world.paths[path].frames[places], "on": on.frames[row, places]}
        frames["off"] = off.frames[row, places]
        latents = {name: encode_frames(model, pictures) for name, pictures in frames.items()}
        frames["codec"] = decode_latents(model, latents["truth"])
        latents["codec"] = encode_frames(model, frames["codec"])
        regions = {
            "new": ~on.known[row, places],
            "imagined": unseen_cells(world, path, places, model.latent_hw),
        }
        judged.append(Judged(regions, frames, latents))
    return judged


def unseen_cells(world: TestWorld, path: str, places: list[int], hw: tuple[int, int]) -> Tensor:
    """Tell of which cells the first frame saw less than half.

    Args:
        world: What the simulator saw.
        path: Which way.
        places: Frames along it.
        hw: Rows and columns of cells.

    Returns:
        bool [F, h, w].
    """
    truth = world.paths[path]
    depth, poses = truth.depth[places], truth.cam2world[places]
    seen = seen_before(depth, poses, truth.depth[0], truth.cam2world[0], world.intrinsics)  # [F, H, W]
    return torch.nn.functional.adaptive_avg_pool2d(seen[:, None].float(), hw)[:, 0] < 0.5


def world_gradients(judged: list[Judged], region: str) -> dict[str, float]:
    """Gradient energy summed over a region of a world's pixels.

    Args:
        judged: The world's frames, path by path.
        region: "new" or "imagined".

    Returns:
        Sum by kind, the truth's too; 0 where no two neighbouring pixels are in the region.
    """
    totals: dict[str, float] = defaultdict(float)
    for each in judged:
        cells = each.regions[region]
        scale = each.frames["truth"].shape[1] // cells.shape[1]
        mask = cells.repeat_interleave(scale, -1).repeat_interleave(scale, -2)  # [F, H, W]
        for name, frames in each.frames.items():
            totals[name] += float(gradient_sums(frames_to_tensor(frames), mask)[0].sum())
    return dict(totals)


def latent_features(latents: Tensor, region: Tensor) -> dict[str, Tensor]:
    """Take features of the cells of a region.

    Args:
        latents: [F, C, h, w].
        region: bool [F, h, w].

    Returns:
        "cell" [N, C], every cell of it; "patch" [N, 4C], every block of 2x2 of its cells; "pooled" [N, 2C],
        mean and standard deviation over its cells in each frame that has enough of them.
    """
    cells = latents.movedim(1, -1)  # [F, h, w, C]
    corners = [(0, 0), (0, 1), (1, 0), (1, 1)]
    height, width = region.shape[-2] // 2 * 2, region.shape[-1] // 2 * 2
    blocks = torch.cat([cells[:, y:height:2, x:width:2] for y, x in corners], dim=-1)  # [F, h/2, w/2, 4C]
    whole = torch.stack([region[:, y:height:2, x:width:2] for y, x in corners]).all(dim=0)
    pooled = [
        torch.cat([frame[mask].mean(dim=0), frame[mask].std(dim=0, correction=0)])
        for frame, mask in zip(cells, region, strict=True)
        if mask.float().mean() >= LEAST_SHARE
    ]
    empty = latents.new_zeros(0, 2 * latents.shape[1])
    return {
        "cell": cells[region],
        "patch": blocks[whole],
        "pooled": torch.stack(pooled) if pooled else empty,
    }


def seed_spread(model: WorldModel, world: TestWorld, seeds: int) -> tuple[float, float]:
    """Continue one first frame with several seeds and measure how far apart the ends of the turn are.

    Args:
        model: Networks and settings.
        world: The world; its turn is walked one way.
        seeds: Number of seeds.

    Returns:
        Mean pairwise root mean squared distance, of latents and of pixels in [-1, 1], over cells that no
        seed's memory knew in the last frame; NaN if there are none.
    """
    last = len(world.paths["yaw"].frames) - 1
    numbers = [world.noise_seed + 100_000 * number for number in range(seeds)]
    told = roll_out(model, [world] * seeds, "yaw", True, back=False, decode=[last], seeds=numbers)
    unknown = (~told.known[:, last]).all(dim=0)  # [h, w]
    if not bool(unknown.any()):
        return float("nan"), float("nan")
    stride = told.frames.shape[2] // unknown.shape[0]
    mask = unknown.repeat_interleave(stride, 0).repeat_interleave(stride, 1)  # [H, W]
    latents = told.latents[:, last][..., unknown]  # [S, C, N]
    pixels = frames_to_tensor(told.frames[:, last])[..., mask]  # [S, 3, M]
    return _pairwise(latents), _pairwise(pixels)


def realism_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_realism`."""
    kinds = (*KINDS, "truth_halves")
    rows = []
    for region in REGIONS:
        ratios = result["sharpness"][region]
        rows.append((f"{region}: sharpness over truth", [show(ratios.get(kind)) for kind in kinds]))
        for feature, distances in result["frechet"][region].items():
            cells = [show(distances[kind], 3) for kind in kinds]
            rows.append((f"{region}: Frechet distance, {feature}", cells))
    table = format_table(rows, ["memory on", "memory off", "codec", "truth halves"])
    shares = ", ".join(f"{region} {show(result['share'][region], 3)}" for region in REGIONS)
    spread = result["diversity"]
    return (
        f"{table}\n\nshare of cells: {shares}\n"
        f"diversity over seeds: latents {show(spread['latent'], 3)}, pixels {show(spread['pixel'], 3)}"
    )


def _distances(
    region: str, feature: str, features: dict[tuple[str, str, str], list[Tensor]]
) -> dict[str, float]:
    """Fréchet distances to the truth by kind, and between two halves of the truth."""
    truth = features[region, feature, "truth"]
    distances = {kind: _frechet(features[region, feature, kind], truth) for kind in KINDS}
    # two parts follow one another for each world, one per path
    halves = [[part for i, part in enumerate(truth) if i // 2 % 2 == parity] for parity in (0, 1)]
    return distances | {"truth_halves": _frechet(*halves)}


def _frechet(a: list[Tensor], b: list[Tensor]) -> float:
    """Distance between two lists of features; NaN where one has too few to fit a Gaussian to."""
    if not a or not b:
        return float("nan")
    x, y = torch.cat(a), torch.cat(b)
    return frechet_distance(x, y) if min(len(x), len(y)) > 1 else float("nan")


def _pairwise(values: Tensor) -> float:
    """Mean over pairs of rows of their root mean squared difference."""
    pairs = combinations(values, 2)
    return float(torch.stack([(a - b).square().mean().sqrt() for a, b in pairs]).mean())
