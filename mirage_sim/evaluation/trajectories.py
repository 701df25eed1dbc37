"""Trajectories: camera files of RealEstate10K's format with a folder of frames each, gone there and back.

Local metrics: the closed-loop ones compare the view back at the first pose with the true first frame, and the
camera score is WorldScore's formula on poses that another program recovered. Neither is a WorldScore.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation.config import LABELS, TrajectoriesConfig
from mirage_sim.evaluation.methods import Method, make_method
from mirage_sim.evaluation.metrics import psnr, ssim
from mirage_sim.evaluation.perceptual import lpips_distance
from mirage_sim.evaluation.report import estimate, format_table, show
from mirage_sim.evaluation.rollout import go
from mirage_sim.folders import visible
from mirage_sim.geometry import compose, from_yaw_pitch, make_intrinsics, relative
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel
from mirage_sim.pictures import find_frame, read_picture
from mirage_sim.recording import write_mp4, write_png
from mirage_sim.recording.camera_file import CameraFile, read_cameras, write_cameras
from mirage_sim.scenes import first_seeds, make_scene

Array = np.ndarray[Any, Any]

EYE_HEIGHT = 1.4
ROTATION_LIMIT, TRANSLATION_LIMIT = 15.0, 0.5
_MICROSECONDS = 62_500  # of a frame at 16 a second


@dataclass(frozen=True)
class Video:
    """A video with cameras, brought to the model's image size.

    Attributes:
        name: Of its camera file.
        frames: uint8 [N, H, W, 3].
        cam2world: float32 [N, 4, 4], the first one level at eye height.
        intrinsics: float32 [3, 3] in pixels.
    """

    name: str
    frames: Array
    cam2world: Tensor
    intrinsics: Tensor


def read_sequence(path: Path, hw: tuple[int, int], scale: float, most: int) -> Video:
    """Read a camera file and its frames.

    Args:
        path: Camera file; its frames lie in the folder of the same name.
        hw: Rows and columns wanted: frames are cut to that shape around their centre and resized.
        scale: Metres of one unit of the file.
        most: Largest number of frames.

    Returns:
        The sequence. The lens is the first frame's.

    Raises:
        FileFormatError: If the file or a frame is missing or cannot be read.
    """
    cameras = read_cameras(path)
    home = path.with_suffix("")
    frames = [read_picture(find_frame(home, time)) for time in cameras.timestamps[:most]]
    if len({frame.shape for frame in frames}) != 1:
        raise FileFormatError(f"{home} must hold frames of one size, got several")
    height, width = frames[0].shape[:2]
    lens = cameras.intrinsics(height, width)[0]
    ratio = max(hw[0] / height, hw[1] / width)
    lens[:2] *= ratio
    lens[0, 2] -= 0.5 * (ratio * width - hw[1])
    lens[1, 2] -= 0.5 * (ratio * height - hw[0])
    poses = cameras.cam2world[:most]
    moved = relative(poses[:1].expand_as(poses), poses)
    moved[:, :3, 3] *= scale
    start = from_yaw_pitch(torch.tensor([0.0, 0.0, EYE_HEIGHT]), 0.0)
    pictures = np.stack([cut(frame, hw) for frame in frames])
    return Video(path.stem, pictures, compose(start.expand_as(moved), moved), lens)


def cut(frame: Array, hw: tuple[int, int]) -> Array:
    """Cut a frame, uint8 [H, W, 3], around its centre to the shape of `hw` and resize it."""
    height, width = frame.shape[:2]
    ratio = max(hw[0] / height, hw[1] / width)
    half_width, half_height = 0.5 * hw[1] / ratio, 0.5 * hw[0] / ratio
    middle_x, middle_y = 0.5 * width, 0.5 * height
    box = (
        middle_x - half_width,
        middle_y - half_height,
        middle_x + half_width,
        middle_y + half_height,
    )
    return np.asarray(Image.fromarray(frame).resize((hw[1], hw[0]), Image.Resampling.LANCZOS, box=box))


def evaluate_trajectories(model: WorldModel, config: TrajectoriesConfig, out: Path) -> dict[str, Any]:
    """Walk along every camera file and back.

    Args:
        model: The embedded model.
        config: What is evaluated.
        out: Folder for the videos.

    Returns:
        `methods[method][figure]`, estimates over files; `aims` and `files`.

    Raises:
        FileFormatError: If the folder holds no camera file, or one is damaged.
    """
    paths = visible(config.folder, "*.txt")
    if not paths:
        raise FileFormatError(f"{config.folder} must hold camera files (*.txt), got none")
    methods = [make_method(name, model) for name in config.methods]
    out.mkdir(parents=True, exist_ok=True)
    told: dict[str, list[dict[str, float]]] = {method.name: [] for method in methods}
    files = []
    for path in tqdm(paths, desc="trajectories", unit="file", disable=None):
        sequence = read_sequence(path, (model.config.height, model.config.width), config.scale, config.frames)
        shown = []
        for method in methods:
            frames = walk(method, sequence, config.seed)
            figures = loop_figures(sequence, frames)
            if config.recovered is not None:
                poses = read_cameras(config.recovered / f"{path.stem}-{method.name}.txt").cam2world
                figures |= camera_figures(sequence.cam2world, poses)
            told[method.name].append(figures)
            shown.append(frames)
        truth = np.concatenate([sequence.frames, sequence.frames[-2::-1]])
        video = np.concatenate([truth, *shown], axis=2)
        files.append(str(write_mp4(out / f"{path.stem}.mp4", list(video), 12.0)))
    figures_by_method = {
        name: {key: estimate([row[key] for row in rows]) for key in rows[0]} for name, rows in told.items()
    }
    return {"methods": figures_by_method, "aims": [], "files": files}


def walk(method: Method, sequence: Video, seed: int) -> Array:
    """Go along a sequence and back; uint8 [2 N - 1, H, W, 3]. Its first frame's depth is predicted."""
    engine = method.worlds(1)
    cameras = torch.cat([sequence.cam2world, sequence.cam2world[:-1].flip(0)])
    first = engine.reset(sequence.frames[:1], cameras[:1], sequence.intrinsics, [seed])
    frames: Array = go(engine, first, cameras[None]).frames[0]
    return frames


def loop_figures(sequence: Video, frames: Array) -> dict[str, float]:
    """Compare what was generated with the video.

    Args:
        sequence: N true frames.
        frames: Generated ones, there and back, uint8 [2 N - 1, H, W, 3].

    Returns:
        `psnr`, `ssim`, `lpips` over the way out without its first frame, and `psnr_c`, `ssim_c`, `lpips_c` of
        the last frame against the true first one.
    """
    real, made = frames_to_tensor(sequence.frames), frames_to_tensor(frames)
    ahead, last = (made[1 : len(real)], real[1:]), (made[-1:], real[:1])
    figures = {}
    for ending, pair in (("", ahead), ("_c", last)):
        figures[f"psnr{ending}"] = float(psnr(*pair).mean())
        figures[f"ssim{ending}"] = float(ssim(*pair).mean())
        figures[f"lpips{ending}"] = lpips_distance(*pair)
    return figures


def camera_figures(wanted: Tensor, recovered: Tensor) -> dict[str, float]:
    """Score recovered cameras against those asked for.

    Args:
        wanted: cam2world [N, 4, 4].
        recovered: cam2world [N, 4, 4], in a frame and at a scale of their own.

    Returns:
        `rotation_error` (mean, degrees), `translation_error` (mean, after the best scale) and `camera_score`,
        the geometric mean of what is left of 15° and 0.5, both at least 0.

    Raises:
        InputError: If the numbers of cameras differ.

    Source: WorldScore's camera controllability.
    """
    if wanted.shape != recovered.shape:
        raise InputError(f"recovered must hold {len(wanted)} cameras, got {len(recovered)}")
    one, two = (relative(poses[:1].expand_as(poses), poses).double() for poses in (wanted, recovered))
    turn = one[:, :3, :3].transpose(-1, -2) @ two[:, :3, :3]
    cosine = ((turn.diagonal(dim1=-2, dim2=-1).sum(-1) - 1.0) / 2.0).clamp(-1.0, 1.0)
    rotation = float(torch.rad2deg(cosine.acos()).mean())
    moved, seen = one[:, :3, 3], two[:, :3, 3]
    size = float(seen.square().sum())
    scale = max(0.0, float((moved * seen).sum()) / size) if size > 0 else 0.0
    translation = float((moved - scale * seen).norm(dim=-1).mean())
    left = max(0.0, 1.0 - rotation / ROTATION_LIMIT), max(0.0, 1.0 - translation / TRANSLATION_LIMIT)
    return {
        "rotation_error": rotation,
        "translation_error": translation,
        "camera_score": math.sqrt(left[0] * left[1]),
    }


def write_scene_sequences(folder: Path, count: int, steps: int, hw: tuple[int, int], seed: int) -> list[Path]:
    """Write walks through test scenes as camera files with frames, wider than high as such videos are.

    Args:
        folder: Receives `<name>.txt` and `<name>/<timestamp>.png`.
        count: Scenes of the test split.
        steps: Frames of each.
        hw: Rows and columns of the frames.
        seed: Decides the walks.

    Returns:
        The camera files.
    """
    lens = make_intrinsics(*hw, 90.0)
    shares = torch.tensor([lens[0, 0] / hw[1], lens[1, 1] / hw[0], lens[0, 2] / hw[1], lens[1, 2] / hw[0]])
    paths = []
    for index, scene_seed in enumerate(first_seeds("test", count)):
        path = folder / f"scene-{index:03d}.txt"
        times = [_MICROSECONDS * step for step in range(steps)]
        with make_scene(scene_seed) as scene:
            cameras = scene.plan_walk(np.random.default_rng([scene_seed, seed]), steps)
            for time, camera in zip(times, cameras, strict=True):
                path.with_suffix("").mkdir(parents=True, exist_ok=True)
                write_png(path.with_suffix("") / f"{time}.png", scene.render(camera, lens, hw).rgb)
        told = CameraFile(f"test scene {index}", times, shares.expand(steps, 4), cameras)
        paths.append(write_cameras(path, told))
    return paths


def trajectories_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_trajectories`."""
    names = list(next(iter(result["methods"].values())))
    rows = [
        (LABELS[method], [show(figures[name], 3) for name in names])
        for method, figures in result["methods"].items()
    ]
    return format_table(rows, [name.upper() if "_c" in name else name for name in names])
