"""Memory benchmark: what a chunk costs with every way to remember, and how much it holds.

With the embedded model the whole step is timed. At the full size the conditioning path stands alone, from the
memory to what the network would be given; `size_bench` times all of it on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from torch import Tensor
from tqdm import tqdm

from mirage_sim.errors import InputError
from mirage_sim.evaluation.bench_config import MemoryBenchConfig
from mirage_sim.evaluation.config import LABELS
from mirage_sim.evaluation.full_size import (
    EncodingTime,
    Shape,
    cache,
    full_size_chunks,
    full_size_codec,
)
from mirage_sim.evaluation.methods import make_method
from mirage_sim.evaluation.report import Aim
from mirage_sim.evaluation.walk import laps
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import Scene, first_seeds, make_scene

NO_TIME = ("cache_mib", "entries_mib", "entries")


def bench_memory(model: WorldModel | None, config: MemoryBenchConfig) -> dict[str, Any]:
    """Time chunks.

    Args:
        model: The embedded model; not looked at by the other preset.
        config: What is timed.

    Returns:
        `methods[name]`, a list over chunks of seconds a frame by part, `total`, `cache_mib` and `entries`;
        `ratios`, median times of every method over the latent memory's; `aims`.

    Raises:
        InputError: If the embedded preset gets no model.
    """
    chunks: dict[str, list[dict[str, float]]] = {}
    with make_scene(first_seeds("test", config.index + 1)[-1]) as scene:
        if config.preset == "full-size":
            shape, codec = Shape(), full_size_codec("cpu" if config.encode_frames else "meta")
            encoding = EncodingTime(codec, config.encode_frames)
            way = plan_way(scene, config, shape.latent_frames)
            remembering = [name for name in config.methods if name != "none"]
            told = {
                n: full_size_chunks(n, scene, way, codec, encoding, shape, config.seed) for n in remembering
            }
        elif model is None:
            raise InputError("model must be given for the embedded preset, got none")
        else:
            told = {name: embedded_chunks(name, model, scene, config) for name in config.methods}
        for name, each in told.items():
            chunks[name] = list(tqdm(each, total=config.chunks, desc=name, unit="chunk", disable=None))
    ratios = _ratios(chunks)
    return {
        "methods": chunks,
        "ratios": ratios,
        "aims": [aim.as_dict() for aim in _aims(config, chunks, ratios)],
    }


def embedded_chunks(
    name: str, model: WorldModel, scene: Scene, config: MemoryBenchConfig
) -> Iterator[dict[str, float]]:
    """Walk one world, chunk by chunk, with everything that a step does.

    Args:
        name: Of the method.
        model: The embedded model.
        scene: The flat.
        config: Which way.

    Yields:
        Seconds a frame: `condition` (read), `generate`, `update` (depth and write), `show` (decode) and
        `total`; `cache_mib` and `entries`.
    """
    hw, frames = (model.config.height, model.config.width), Shape.frames
    way = plan_way(scene, config, frames)
    view = scene.render(way[0], model.intrinsics(), hw)
    engine = make_method(name, model).worlds(1)
    engine.reset(view.rgb[None], way[:1], None, [config.seed], depth=view.depth[None])
    length = engine.segment_length
    for first in range(1, len(way), frames):
        parts = dict.fromkeys(("condition", "generate", "update", "show"), 0.0)
        for place in range(first, first + frames, length):
            taken = engine.step(way[None, place : place + length]).timings_ms
            parts["condition"] += taken["read"]
            parts["generate"] += taken["generate"]
            parts["update"] += taken["depth"] + taken["write"]
            parts["show"] += taken["decode"]
        parts = {part: ms / 1000.0 / frames for part, ms in parts.items()}
        yield parts | {"total": sum(parts.values())} | cache(engine.memory.stats())


def plan_way(scene: Scene, config: MemoryBenchConfig, per_chunk: int) -> Tensor:
    """Plan cameras [chunks * per_chunk + 1, 4, 4]: a walk through the flat, or laps of its beginning."""
    steps = config.chunks * per_chunk
    rng = np.random.default_rng([scene.seed, config.seed])
    if config.one_place in range(1, config.chunks):
        return laps(scene.plan_walk(rng, config.one_place * per_chunk + 1), steps)
    return scene.plan_walk(rng, steps + 1)


def _ratios(chunks: dict[str, list[dict[str, float]]]) -> dict[str, dict[str, float]]:
    """Median times of every method over the latent memory's; parts that take it no time are left out."""
    if "latent" not in chunks:
        return {}

    def median(name: str, part: str) -> float:
        return float(np.median([chunk[part] for chunk in chunks[name]]))

    timed = [part for part in chunks["latent"][0] if part not in NO_TIME]
    return {
        name: {
            part: median(name, part) / median("latent", part) for part in timed if median("latent", part) > 0
        }
        for name in chunks
        if name != "latent"
    }


def _aims(
    config: MemoryBenchConfig, chunks: dict[str, list[dict[str, float]]], ratios: dict[str, dict[str, float]]
) -> list[Aim]:
    """What the project set itself at the full size."""
    if config.preset != "full-size":
        return []
    aims = [
        Aim(f"conditioning, {LABELS[name]} over latent memory", ratios[name]["condition"], low=30.0)
        for name in ratios
        if name.startswith("colours") and config.encode_frames
    ]
    if "latent" in chunks and config.chunks >= 5:
        aims.append(Aim("entries after 5 chunks, MiB", chunks["latent"][4]["entries_mib"], high=1.1))
    if "latent" in chunks and config.one_place and config.chunks >= 4 * config.one_place:
        entries = [chunk["entries"] for chunk in chunks["latent"]]
        grown = entries[-1] / entries[2 * config.one_place - 1]
        aims.append(Aim("entries at the end over those after the first lap", grown, high=1.25))
    return aims
