"""Depth: how far off the depth head is on true frames, and what the memory's depth changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mirage_sim.evaluation.config import DepthConfig
from mirage_sim.evaluation.report import estimate, format_table, show
from mirage_sim.evaluation.rollout import encode_frames
from mirage_sim.evaluation.worlds import render_path
from mirage_sim.geometry import downsample_depth, ray_directions, rescale_intrinsics
from mirage_sim.memory import SpatialMemory
from mirage_sim.model.depth_head import depth_geometry
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import first_seeds, make_scene

SETTINGS = ("alone", "with_memory")


def evaluate_depth(model: WorldModel, config: DepthConfig) -> dict[str, Any]:
    """Measure the depth head on true frames, alone and with the depth that a memory of an earlier view gives.

    Args:
        model: Whose depth head is measured.
        config: Which frames.

    Returns:
        `figures[setting][cells]` with `median_error` (relative), `delta_125` (share within a factor of 1.25)
        and `surface` (share of cells whose surface-or-sky is right), estimates over scenes. `cells` is "all",
        or "unknown" for those that the memory did not hold. `known` is the mean share that it held.
    """
    figures: dict[str, dict[str, dict[str, list[float]]]] = {
        setting: {cells: {} for cells in ("all", "unknown")} for setting in SETTINGS
    }
    shares: list[float] = []
    for scene_seed in tqdm(
        first_seeds(config.split, config.worlds), desc="depth", unit="world", disable=None
    ):
        views = true_pairs(model, scene_seed, config)
        known_depth, known = remembered(model, views)
        shares.append(float(known.float().mean()))
        for setting in SETTINGS:
            mask = known if setting == "with_memory" else torch.zeros_like(known)
            predicted, surface = predict_depth(model, views, known_depth * mask, mask)
            for cells, chosen in (("all", torch.ones_like(known)), ("unknown", ~known)):
                for name, value in depth_errors(predicted, surface, views.depth[:, 1], chosen).items():
                    figures[setting][cells].setdefault(name, []).append(value)
    told = {
        setting: {
            cells: {name: estimate(values) for name, values in table.items()}
            for cells, table in by_cells.items()
        }
        for setting, by_cells in figures.items()
    }
    return {"figures": told, "known": estimate(shares), "aims": [], "files": []}


@dataclass(frozen=True)
class TruePairs:
    """Pairs of true views of one scene; the first is remembered, the second judged.

    Attributes:
        latents: float32 [N, 2, C, h, w].
        depth: True z-depth at latent resolution, metres, 0 for the sky, [N, 2, h, w].
        cam2world: [N, 2, 4, 4].
        cells: Intrinsics [3, 3] in latent cells.
    """

    latents: Tensor
    depth: Tensor
    cam2world: Tensor
    cells: Tensor


def true_pairs(model: WorldModel, scene_seed: int, config: DepthConfig) -> TruePairs:
    """Render pairs of views along a walk, with the two of a pair `config.gap` steps apart."""
    hw, stride = (model.config.height, model.config.width), model.codec.spatial_stride
    lens = model.intrinsics()
    with make_scene(scene_seed) as scene:
        rng = np.random.default_rng([scene_seed, config.seed])
        walks = [scene.plan_walk(rng, config.gap + 1)[[0, -1]] for _ in range(config.pairs)]
        seen = render_path(scene, torch.cat(walks), lens, hw)
    latents = encode_frames(model, seen.frames)
    latents = latents.reshape(-1, 2, *latents.shape[1:])
    depth = downsample_depth(seen.depth, stride)
    depth = depth.reshape(-1, 2, *depth.shape[1:])
    return TruePairs(latents, depth, torch.stack(walks), rescale_intrinsics(lens, 1.0 / stride))


def remembered(model: WorldModel, views: TruePairs) -> tuple[Tensor, Tensor]:
    """Write the first views into memories of their own and read them from the second.

    Args:
        model: Whose memory settings are used.
        views: N pairs.

    Returns:
        Depth [N, h, w] that the memory gives, and bool [N, h, w] where it does.
    """
    count = len(views.latents)
    memory = SpatialMemory(model.config.memory, count)
    lens = views.cells.expand(count, 1, 3, 3)
    memory.write(views.latents[:, :1], views.depth[:, :1], views.cam2world[:, :1], lens)
    read = memory.read(views.cam2world[:, 1:], lens, model.latent_hw)
    return read.depth[:, 0], read.mask[:, 0]


def predict_depth(
    model: WorldModel, views: TruePairs, known_depth: Tensor, known: Tensor
) -> tuple[Tensor, Tensor]:
    """Ask the depth head about the second views.

    Args:
        model: Whose head.
        views: N pairs.
        known_depth: What the memory tells, [N, h, w] metres.
        known: bool [N, h, w], where it does.

    Returns:
        Depth [N, h, w] in metres and the probability [N, h, w] of a surface, on the CPU.
    """
    poses = views.cam2world[:, 1]
    rays = ray_directions(poses, views.cells.expand(len(poses), 3, 3), model.latent_hw)  # [N, h, w, 3]
    geometry = depth_geometry(known_depth, known, rays, poses[:, 2, 3])
    said = model.depth_head.predict(views.latents[:, 1].to(model.device), geometry.to(model.device))
    return said.depth.cpu(), said.surface.cpu()


def depth_errors(predicted: Tensor, surface: Tensor, truth: Tensor, cells: Tensor) -> dict[str, float]:
    """Compare depths.

    Args:
        predicted: [N, h, w] metres.
        surface: Probability of a surface, [N, h, w].
        truth: [N, h, w] metres, 0 for the sky.
        cells: bool [N, h, w], which count.

    Returns:
        `median_error` |d - d*| / d*, `delta_125` the share with max(d / d*, d* / d) < 1.25, and `surface` the
        share where surface or sky was told rightly; NaN if no cell counts.
    """
    there = cells & (truth > 0)
    right = ((surface > 0.5) == (truth > 0))[cells].double().mean()
    if not bool(there.any()):
        return {"median_error": float("nan"), "delta_125": float("nan"), "surface": float(right)}
    said, real = predicted[there].double(), truth[there].double()
    factor = torch.maximum(said / real, real / said)
    return {
        "median_error": float(((said - real).abs() / real).median()),
        "delta_125": float((factor < 1.25).double().mean()),
        "surface": float(right),
    }


def depth_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_depth`."""
    columns = [(setting, cells) for setting in SETTINGS for cells in ("all", "unknown")]
    names = result["figures"]["alone"]["all"]
    rows = [
        (name, [show(result["figures"][setting][cells][name], 4) for setting, cells in columns])
        for name in names
    ]
    header = [f"{setting.replace('_', ' ')}, {cells} cells" for setting, cells in columns]
    return f"{format_table(rows, header)}\n\nknown to the memory: {show(result['known'], 3)}"
