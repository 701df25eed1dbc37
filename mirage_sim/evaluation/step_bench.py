"""Step benchmark: what a step costs, part by part, for one world, a vector of worlds, and latents only."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mirage_sim.evaluation.bench_config import StepBenchConfig
from mirage_sim.evaluation.report import Aim, format_table, show
from mirage_sim.model.world_model import WorldModel
from mirage_sim.recording import HDF5Writer, make_env_args
from mirage_sim.scenes import SPLITS, make_scene
from mirage_sim.world import World

NETWORK_PARTS = ("generate", "depth", "decode")
PARTS = ("read", "generate", "decode", "depth", "write", "record", "other")


def bench_step(model: WorldModel, config: StepBenchConfig) -> dict[str, Any]:
    """Time steps of one world, of a vector, and of one world without decoding.

    Args:
        model: Networks and settings.
        config: How steps are timed.

    Returns:
        `one`, `vector` and `latents`, each with `ms` (median by part, and `step`, recording included),
        `steps_per_second` (over all worlds) and `not_network` (share of the step); and `aims`.
    """
    settings = {
        "one": time_steps(model, config, 1, True),
        "vector": time_steps(model, config, config.vector, True),
        "latents": time_steps(model, config, 1, False),
    }
    aims = [
        Aim("steps a second, one world", settings["one"]["steps_per_second"], low=15.0),
        Aim(
            f"steps a second, {config.vector} worlds in all", settings["vector"]["steps_per_second"], low=30.0
        ),
        Aim("steps a second, one world, latents only", settings["latents"]["steps_per_second"], low=25.0),
        Aim("share of a step that is no network", settings["one"]["not_network"], high=0.15),
    ]
    return settings | {"aims": [aim.as_dict() for aim in aims]}


def time_steps(model: WorldModel, config: StepBenchConfig, worlds: int, decode: bool) -> dict[str, Any]:
    """Time one setting: worlds walk through a test scene each while the first one is recorded.

    Args:
        model: Networks and settings.
        config: How steps are timed.
        worlds: Worlds at once.
        decode: Whether frames are made, or latents are enough.

    Returns:
        Medians, see `bench_step`. "other" is what the step takes beside its named parts.
    """
    hw, lens = (model.config.height, model.config.width), model.intrinsics()
    length = model.config.segment_length
    total = config.warm_up + config.steps
    cameras, views = [], []
    for scene_seed in SPLITS["test"][:worlds]:
        with make_scene(scene_seed) as scene:
            path = scene.plan_walk(np.random.default_rng([scene_seed, config.seed]), total * length + 1)
            views.append(scene.render(path[0], lens, hw))
            cameras.append(path)
    paths = torch.stack(cameras)  # [B, total T + 1, 4, 4]
    engine = World(model, worlds)
    colour, depth = np.stack([view.rgb for view in views]), np.stack([view.depth for view in views])
    engine.reset(colour, paths[:, 0], lens, [config.seed + world for world in range(worlds)], depth=depth)
    laps: dict[str, list[float]] = {name: [] for name in (*PARTS, "step")}
    with tempfile.TemporaryDirectory(prefix="bench-step-") as folder:
        writer = HDF5Writer(Path(folder) / "steps.h5", env_args=make_env_args("bench", {}))
        with writer:
            streams = [writer.open_episode(initial={"intrinsics": lens.numpy()}) for _ in range(worlds)]
            before: list[dict[str, Any]] = [{} for _ in range(worlds)]
            for step in range(total):
                poses = paths[:, 1 + step * length : 1 + (step + 1) * length]
                began = time.perf_counter()
                segment = engine.step(poses, decode=decode)
                stepped = time.perf_counter()
                for world, stream in enumerate(streams):
                    seen: dict[str, Any] = {"cam2world": poses[world, -1].numpy()}
                    if segment.frames is not None:
                        seen["rgb"] = segment.frames[world, -1]
                    else:
                        seen["latents"] = segment.latents[world, -1].cpu().numpy()
                    action = np.zeros(5, np.float32)
                    stream.append(before[world] or seen, action, 0.0, False, False, seen, None)
                    before[world] = seen
                ended = time.perf_counter()
                if step >= config.warm_up:
                    parts = dict(segment.timings_ms)
                    parts["other"] = 1000.0 * (stepped - began) - sum(parts.values())
                    parts["record"], parts["step"] = 1000.0 * (ended - stepped), 1000.0 * (ended - began)
                    for name, values in laps.items():
                        values.append(parts.get(name, 0.0))
            for stream in streams:
                writer.discard_episode(stream)
    medians = {name: float(np.median(values)) for name, values in laps.items()}
    rest = sum(medians[name] for name in PARTS if name not in NETWORK_PARTS)
    return {
        "worlds": worlds,
        "ms": medians,
        "steps_per_second": 1000.0 * worlds / medians["step"],
        "not_network": rest / medians["step"],
        "entries": float(np.median(engine.memory.stats().entries)),
    }


def step_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `bench_step`."""
    names = ("one", "vector", "latents")
    rows = [(f"{part}, ms", [show(result[name]["ms"][part]) for name in names]) for part in (*PARTS, "step")]
    rows.append(("steps a second", [show(result[name]["steps_per_second"], 1) for name in names]))
    rows.append(("not network", [show(result[name]["not_network"], 3) for name in names]))
    return format_table(rows, ["one world", f"{result['vector']['worlds']} worlds", "one, latents"])
