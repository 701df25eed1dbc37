"""Stage 0: walks through the procedural scenes, recorded to HDF5, and read back as arrays for training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mirage_sim.errors import FileFormatError
from mirage_sim.folders import visible
from mirage_sim.geometry.cameras import downsample_depth, make_intrinsics
from mirage_sim.geometry.poses import relative
from mirage_sim.recording import HDF5Reader, HDF5Writer, make_env_args
from mirage_sim.scenes import RENDERER, first_seeds, make_scene
from mirage_sim.training.config import ClipsConfig

Array = np.ndarray[Any, Any]


def record_clips(config: ClipsConfig, folder: Path, workers: int = 2) -> list[Path]:
    """Render the clips; shards that are already there are kept, so an interrupted run goes on.

    Args:
        config: What to record.
        folder: Receives `<split>-<shard>.h5`.
        workers: Processes.

    Returns:
        The files in order.
    """
    folder.mkdir(parents=True, exist_ok=True)
    seeds = first_seeds(config.split, config.scenes, "scenes")
    shards = [seeds[index :: config.shards] for index in range(min(config.shards, len(seeds)))]
    paths = [folder / f"{config.split}-{index:03d}.h5" for index in range(len(shards))]
    todo = [(path, shard) for path, shard in zip(paths, shards, strict=True) if not path.exists()]
    with ProcessPoolExecutor(max_workers=workers) as pool:
        jobs = [pool.submit(_record_shard, config, list(shard), path) for path, shard in todo]
        for job in tqdm(as_completed(jobs), total=len(jobs), desc=f"record {config.split}"):
            job.result()
    return paths


def _record_shard(config: ClipsConfig, seeds: Sequence[int], path: Path) -> None:
    torch.set_num_threads(1)
    temporary = path.with_suffix(".part.h5")
    temporary.unlink(missing_ok=True)
    size = (config.size, config.size)
    intrinsics = make_intrinsics(*size, config.fov_x_deg)
    env_args = make_env_args("mirage_sim.scenes", {"split": config.split})
    metadata = {"steps": config.steps, "renderer": RENDERER}
    with HDF5Writer(temporary, env_args=env_args, metadata=metadata) as writer:
        for seed in seeds:
            with make_scene(seed) as scene:
                for walk in range(config.walks):
                    rng = np.random.default_rng([seed, walk])
                    cam2world = scene.plan_walk(rng, config.steps)  # [T, 4, 4]
                    motion = relative(cam2world[:-1], cam2world[1:]).numpy()  # [T-1, 4, 4]
                    views = [scene.render(cam2world[step], intrinsics, size) for step in range(config.steps)]
                    depth = downsample_depth(
                        torch.from_numpy(np.stack([view.depth for view in views])), config.depth_stride
                    ).numpy()  # [T, h, w]
                    writer.write_episode(
                        {
                            "rgb": np.stack([view.rgb for view in views]),
                            "depth": depth,
                            "cam2world": cam2world.numpy(),
                        },
                        actions=motion[:, :3].reshape(len(motion), 12),
                        rewards=np.zeros(len(motion), dtype=np.float32),
                        intrinsics=intrinsics.numpy(),
                        seed=seed,
                        walk=walk,
                    )
    os.replace(temporary, path)


@dataclass(frozen=True)
class Clips:
    """Recorded walks as arrays: E clips of T frames.

    Attributes:
        rgb: uint8 [E, T, H, W, 3].
        depth: float32 [E, T, h, w], metres at latent resolution, 0 unknown.
        cam2world: float32 [E, T, 4, 4].
        intrinsics: float32 [3, 3] of the images.
        seeds: int [E], scene of each clip.
    """

    rgb: Array
    depth: Array
    cam2world: Array
    intrinsics: Array
    seeds: Array


def read_clips(folder: Path, split: str, limit: int | None = None) -> Clips:
    """Read every clip of a split.

    Args:
        folder: Where `record_clips` wrote.
        split: Name of the split.
        limit: Largest number of files, or `None` for all.

    Returns:
        The clips, in the order of the files.

    Raises:
        FileFormatError: If there are none.
    """
    paths = [path for path in visible(folder, f"{split}-*.h5") if ".part" not in path.name][:limit]
    if not paths:
        raise FileFormatError(f"no {split}-*.h5 in {folder}: record clips with `mirage-sim train data` first")
    episodes = [episode for path in paths for episode in HDF5Reader(path)]

    def whole(key: str) -> Array:
        return np.stack([np.concatenate([e.obs[key], e.next_obs[key][-1:]]) for e in episodes])

    return Clips(
        rgb=whole("rgb"),
        depth=whole("depth").astype(np.float32),
        cam2world=whole("cam2world").astype(np.float32),
        intrinsics=np.asarray(episodes[0].intrinsics, dtype=np.float32),
        seeds=np.array([int(episode.attrs["seed"]) for episode in episodes]),
    )
