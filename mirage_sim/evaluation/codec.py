"""Codec: how much of a true frame survives compression; the ceiling of everything that is generated."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from mirage_sim.evaluation.config import FramesConfig
from mirage_sim.evaluation.metrics import gradient_energy, psnr, ssim
from mirage_sim.evaluation.report import Aim, estimate, format_table, show, write_sheet
from mirage_sim.evaluation.rollout import reconstruct
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import first_seeds, make_scene

Array = np.ndarray[Any, Any]


def evaluate_codec(model: WorldModel, config: FramesConfig, out: Path | None = None) -> dict[str, Any]:
    """Measure reconstruction of true frames.

    Args:
        model: Whose codec is measured.
        config: Which frames.
        out: Folder for the contact sheet; none is drawn if `None`.

    Returns:
        `psnr` (dB), `ssim` and `sharpness` (gradient energy over the truth's) as estimates over scenes;
        `aims` and `files`.
    """
    hw = (model.config.height, model.config.width)
    lens = model.intrinsics()
    psnrs, ssims, sharpness = [], [], []
    rows: list[list[Array]] = []
    for scene_seed in tqdm(
        first_seeds(config.split, config.worlds), desc="codec", unit="world", disable=None
    ):
        with make_scene(scene_seed) as scene:
            rng = np.random.default_rng([scene_seed, config.seed])
            poses = [scene.sample_pose(rng) for _ in range(config.frames)]
            frames = np.stack([scene.render(pose, lens, hw).rgb for pose in poses])
        coded = reconstruct(model, frames)
        real, rebuilt = frames_to_tensor(frames), frames_to_tensor(coded)
        psnrs.append(float(psnr(rebuilt, real).mean()))
        ssims.append(float(ssim(rebuilt, real).mean()))
        sharpness.append(float(gradient_energy(rebuilt).sum() / gradient_energy(real).sum().clamp(min=1e-9)))
        if len(rows) < config.sheet_worlds:
            rows.append([frames[0], coded[0], frames[-1], coded[-1]])
    result: dict[str, Any] = {
        "psnr": estimate(psnrs),
        "ssim": estimate(ssims),
        "sharpness": estimate(sharpness),
        "files": [],
    }
    result["aims"] = [Aim("codec reconstruction, dB", result["psnr"]["mean"], low=33.0).as_dict()]
    if out is not None:
        labels = [str(index) for index in range(len(rows))]
        sheet = write_sheet(out / "codec.png", rows, ["truth", "coded", "truth", "coded"], labels)
        result["files"] = [str(sheet)]
    return result


def codec_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_codec`."""
    digits = {"psnr": 2, "ssim": 4, "sharpness": 3}
    return format_table(
        [(name, [show(result[name], digits[name])]) for name in digits], ["mean ± 95 % interval"]
    )
