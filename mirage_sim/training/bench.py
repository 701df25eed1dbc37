"""Benchmark: training steps at full size with random weights on a GPU, their seconds and peak memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from mirage_sim.errors import InputError
from mirage_sim.evaluation.full_size import full_size_codec
from mirage_sim.evaluation.report import format_table, show
from mirage_sim.evaluation.whole_size import Room, random_generator, walk
from mirage_sim.geometry import make_intrinsics
from mirage_sim.model.config import WAN_5B
from mirage_sim.model.full_size import full_size_config
from mirage_sim.model.world_model import WorldModel
from mirage_sim.perception import Seen
from mirage_sim.sources.latents import EncodedClip, LatentSettings
from mirage_sim.training.config import FullSizeConfig, TrainBenchConfig
from mirage_sim.training.full_size import DepthIsKnown, prepare, sequence_loss
from mirage_sim.training.precision import mixed_precision, uses_bf16
from mirage_sim.training.sequences import Sequences
from mirage_sim.world.clock import now

_FRAMES = 21
"""Latent frames of a clip of 81 pictures."""


class RandomClips:
    """Stands for a file of latents: a walk through an empty room, in noise, made anew whenever it is read."""

    path = Path("random clips")

    def __init__(self, config: TrainBenchConfig, channels: int, stride: int, temporal: int) -> None:
        """Lay the clip out.

        Args:
            config: Tells size and seed.
            channels: Of a latent frame.
            stride: Pixels of a cell's side.
            temporal: Pixel frames of a latent frame.
        """
        frames, (height, width) = 1 + temporal * (_FRAMES - 1), config.size
        told = (channels, stride, temporal, height, width, frames, 1, frames, "bfloat16", (0, 1))
        self.settings = LatentSettings("random", "", *told)
        self._seed = config.seed

    def __len__(self) -> int:
        """One clip."""
        return 1

    def has_depth(self) -> dict[str, bool]:
        """It does."""
        return {"walk": True}

    def clip(self, index: int) -> EncodedClip:
        """Make the clip."""
        count, channels, rows, columns = self.settings.latent_shape
        room, cameras = Room(), walk(count - 1)
        room.cameras = cameras
        chance = torch.Generator().manual_seed(self._seed + index)
        latents = torch.randn(count, channels, rows, columns, generator=chance)
        lens = make_intrinsics(rows, columns, 75.0).expand(count, 3, 3)
        depth = room.estimate(Seen(latents, latents, latents[:, 0], latents[:, 0] > 0, None, lens)).depth
        keep = torch.ones(count, rows, columns, dtype=torch.bool)
        return EncodedClip("walk", 0, 16.0, latents.bfloat16(), depth, keep, cameras, lens)


def bench_train(config: TrainBenchConfig) -> dict[str, Any]:
    """Time training steps, drawing of sequences included.

    Args:
        config: What is timed.

    Returns:
        `stages[name]`: `seconds` of a step (median), `first`, `peak_mib` and `trained` parameters.

    Raises:
        InputError: If the published shape is asked for without a GPU.
    """
    device = torch.device(config.device)
    if config.generator == WAN_5B and device.type != "cuda":
        raise InputError(f"bench must run on a CUDA device at the published size, got {config.device!r}")
    return {"stages": {stage: _bench_stage(stage, config, device) for stage in config.stages}}


def _bench_stage(stage: str, config: TrainBenchConfig, device: torch.device) -> dict[str, float]:
    generator = random_generator(config.generator, device, config.seed)
    if not uses_bf16(device):
        generator.float()
    codec = full_size_codec().to(device).requires_grad_(False).eval()
    size = {"height": config.size[0], "width": config.size[1]}
    settings = full_size_config(generator.config, **size)
    model = WorldModel(settings, codec, generator, DepthIsKnown())
    prepare(stage, model, FullSizeConfig(recompute=config.recompute), config.seed)
    clips: Any = RandomClips(config, codec.channels, codec.spatial_stride, codec.temporal_stride)
    drawn = Sequences(model, clips)
    trained = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-5, fused=device.type == "cuda")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    laps = []
    for step in tqdm(range(config.steps), desc=stage, unit="step", disable=None):
        began, rng = now(device), np.random.default_rng([config.seed, step])
        sequence = drawn.draw(config.batch_size, rng)
        with mixed_precision(device, cache_enabled=False):
            loss = sequence_loss(model, generator, sequence, rng)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        laps.append(now(device) - began)
    return {
        "seconds": median(laps[1:]),
        "first": laps[0],
        "peak_mib": torch.cuda.max_memory_allocated(device) / 2**20 if device.type == "cuda" else 0.0,
        "trained": float(sum(parameter.numel() for parameter in trained)),
    }


def train_table(result: Mapping[str, Any]) -> str:
    """Lay out the figures of `bench_train`."""
    rows = [
        (name, [f"{each['trained']:,.0f}", show(each["seconds"], 2), show(each["peak_mib"] / 1024, 1)])
        for name, each in result["stages"].items()
    ]
    return format_table(rows, ["trained parameters", "s a step", "peak, GiB"])
