"""Moving things: what each filter keeps out of the memory when balls roll and a robot walks through the view.

A camera turns to and fro while things move, and what it sees is written as it is, true pictures with true
depths. Afterwards the memory is read, from the first pose and from beside it, and compared with the flat
without the movers, where one of them had been in the way at any time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from mirage_sim.baselines.colour_points import share_of_cells, to_pixels
from mirage_sim.errors import StateError
from mirage_sim.evaluation.config import MovingConfig
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.report import estimate, format_table, show, write_sheet
from mirage_sim.evaluation.rollout import decode_latents, encode_frames
from mirage_sim.geometry import downsample_depth, rescale_intrinsics, yaw_sweep
from mirage_sim.memory import SpatialMemory
from mirage_sim.model.condition import build_condition
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import View, first_seeds, make_scene
from mirage_sim.scenes.movers import Movers

Array = np.ndarray[Any, Any]

FILTERS = {
    "none": (False, False),
    "free space": (True, False),
    "mask": (False, True),
    "both": (True, True),
}
"""Whether the free-space filter is on, and whether the caller masks what can move."""
ASIDE = 0.3  # metres to the side
_ATTEMPTS = 50


@dataclass(frozen=True)
class _Look:
    """What is asked of the memory: a camera, what it sees without movers, and where one ever stood."""

    camera: Tensor  # [4, 4]
    still: View
    touched: Array  # bool [H, W]


@dataclass(frozen=True)
class _Seen:
    """What is written, and what is asked."""

    cameras: Tensor  # [T, 4, 4]
    views: list[View]
    masks: Array  # bool [T, H, W]
    looks: dict[str, _Look]  # from the first pose ("here") and from beside it ("aside")


@torch.no_grad()
def evaluate_moving(model: WorldModel, config: MovingConfig, out: Path | None = None) -> dict[str, Any]:
    """Measure what every set of filters leaves of the movers.

    Args:
        model: Its codec, memory settings and resampler are used.
        config: What is looked at.
        out: Folder for a contact sheet.

    Returns:
        `filters[name]` with, for both views, `psnr_*` (where a mover had been, over cells that the memory
        knows), `depth_error_*` (root mean square of log depth there) and `known_*` (share of the cells there
        that it knows), and `entries`; `gain[name]`, paired differences to "none"; `aims` and `files`.
    """
    figures: dict[str, dict[str, list[float]]] = {name: {} for name in FILTERS}
    rows: list[list[Array]] = []
    seeds = first_seeds(config.split, config.worlds)
    for seed in tqdm(seeds, desc="moving", unit="world", disable=None):
        seen = _look_around(model, seed, config)
        pictures = [seen.views[0].rgb, seen.looks["aside"].still.rgb]
        for name, (free_space, masked) in FILTERS.items():
            memory = _write(model, seen, free_space, masked)
            told = {"entries": float(memory.stats().entries[0])}
            for place, look in seen.looks.items():
                figure, picture = _judge(model, memory, look)
                told |= {f"{key}_{place}": value for key, value in figure.items()}
            for key, value in told.items():
                figures[name].setdefault(key, []).append(value)
            pictures.append(picture)
        rows.append(pictures)
    files = []
    if out is not None:
        labels = [str(index) for index in range(len(rows))][:16]
        header = ["with movers", "aside, without", *FILTERS]
        files.append(str(write_sheet(out / "moving.png", rows[:16], header, labels)))
    shown = {name: {key: estimate(values) for key, values in told.items()} for name, told in figures.items()}
    gains = {name: _differences(told, figures["none"]) for name, told in figures.items() if name != "none"}
    return {"filters": shown, "gain": gains, "aims": [], "files": files}


def _differences(ours: dict[str, list[float]], theirs: dict[str, list[float]]) -> dict[str, Any]:
    pairs = {key: zip(values, theirs[key], strict=True) for key, values in ours.items()}
    return {key: estimate([a - b for a, b in pair]) for key, pair in pairs.items()}


def _look_around(model: WorldModel, seed: int, config: MovingConfig) -> _Seen:
    """Render a scene with movers while the camera turns to and fro."""
    hw, lens = (model.config.height, model.config.width), model.intrinsics()
    rng = np.random.default_rng([seed, config.seed])
    with make_scene(seed) as scene:
        for _ in range(_ATTEMPTS):
            start = scene.sample_pose(rng)
            try:
                movers = Movers(scene, start, rng)
                break
            except StateError:
                continue
        else:
            raise StateError(f"scene {seed} has no camera with room for movers before it")
        out = yaw_sweep(start, config.degrees, config.steps // 2)
        cameras = torch.cat([out, out[:-1].flip(0)])
        aside = start.clone()
        aside[:3, 3] += ASIDE * start[:3, 0]
        asked = {"here": start, "aside": aside}
        touched = {place: np.zeros(hw, bool) for place in asked}
        views, masks = [], []
        for step, camera in enumerate(cameras):
            movers.place(config.seconds * step)
            views.append(scene.render(camera, lens, hw))
            masks.append(movers.mask(views[-1]))
            for place, pose in asked.items():
                touched[place] |= movers.mask(scene.render(pose, lens, hw))
        movers.hide()
        looks = {p: _Look(pose, scene.render(pose, lens, hw), touched[p]) for p, pose in asked.items()}
    return _Seen(cameras, views, np.stack(masks), looks)


def _cell_lens(model: WorldModel) -> Tensor:
    lens = rescale_intrinsics(model.intrinsics(), 1.0 / model.codec.spatial_stride)
    return lens.to(model.device).expand(1, 1, 3, 3)


def _write(model: WorldModel, seen: _Seen, free_space: bool, masked: bool) -> SpatialMemory:
    """Write all views under these filters."""
    stride, settings = model.codec.spatial_stride, model.config.memory
    memory = SpatialMemory(replace(settings, filter_free_space=free_space), 1, model.device)
    latents = encode_frames(model, np.stack([view.rgb for view in seen.views])).to(
        model.device
    )  # [T, C, h, w]
    for step, view in enumerate(seen.views):
        depth = downsample_depth(torch.from_numpy(view.depth), stride)
        depth = torch.where(depth > 0, depth, settings.sky_depth)[None, None].to(model.device)
        keep = ~_touched_cells(seen.masks[step], stride)[None, None].to(model.device) if masked else None
        camera = seen.cameras[step][None, None].to(model.device)
        memory.write(latents[step][None, None], depth, camera, _cell_lens(model), keep)
    return memory


def _judge(model: WorldModel, memory: SpatialMemory, look: _Look) -> tuple[dict[str, float], Array]:
    """Read the memory and compare it with the flat without movers; figures and what is remembered."""
    stride = model.codec.spatial_stride
    read = memory.read(look.camera[None, None].to(model.device), _cell_lens(model), model.latent_hw)
    carried = model.resampler.carry(read, build_condition(read, model.config.extras))
    picture = decode_latents(model, torch.where(read.mask[:, :, None], carried, 0.0)[:, 0])[0]
    known, depth = read.mask[0, 0].cpu(), read.depth[0, 0].cpu()
    pixels = to_pixels(known, stride)
    truth, made = (frames_to_tensor(each[None])[0] for each in (look.still.rgb, picture))
    cells, true_depth = (
        _touched_cells(look.touched, stride),
        downsample_depth(torch.from_numpy(look.still.depth), stride),
    )
    both = cells & known & (true_depth > 0) & ~model.config.memory.is_sky(depth)
    error = (depth / true_depth)[both].log()
    figures = {
        "psnr": float(psnr(made, truth, torch.from_numpy(look.touched) & pixels)),
        "depth_error": float(error.square().mean().sqrt()),
        "known": float(known[cells].float().mean()),
    }
    picture[~pixels.numpy()] = 255
    return figures, picture


def _touched_cells(pixels: Array, stride: int) -> Tensor:
    """Cells [h, w] any of whose pixels [H, W] is true."""
    return share_of_cells(torch.from_numpy(pixels), stride) > 0


def moving_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_moving`."""
    rows = []
    for name, told in result["filters"].items():
        gain = result["gain"].get(name, {})
        for place in ("here", "aside"):
            cells = [show(told[f"psnr_{place}"], 1), show(gain.get(f"psnr_{place}"), 1)]
            cells += [show(told[f"{key}_{place}"], 3) for key in ("depth_error", "known")]
            rows.append((f"{name}, {place}", [*cells, show(told["entries"], 0)]))
    return format_table(rows, ["truth, dB", "gain, dB", "log depth error", "known", "entries"])
