"""Rollouts: worlds walked along given cameras, whatever the model's segment length and codec."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.errors import StateError
from mirage_sim.evaluation.worlds import TestWorld
from mirage_sim.model.images import frames_to_tensor, tensor_to_frames
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world import Segment, World

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Rollout:
    """What B worlds showed along P cameras; frames that were not asked for are zero.

    Attributes:
        frames: uint8 [B, P, H, W, 3].
        latents: float32 [B, P, C, h, w].
        known: bool [B, P, h, w], cells that the memory held before.
        entries: int64 [B], tokens in memory at the end.
    """

    frames: Array
    latents: Tensor
    known: Tensor
    entries: Tensor


def roll_out(
    model: WorldModel,
    worlds: list[TestWorld],
    path: str,
    memory: bool,
    back: bool = True,
    decode: Collection[int] | None = None,
    seeds: list[int] | None = None,
) -> Rollout:
    """Walk worlds along their paths.

    Args:
        model: Networks and settings.
        worlds: B worlds.
        path: "out" or "yaw".
        memory: Whether the memory is used.
        back: Whether to return through the same poses.
        decode: Places along the cameras whose frames are wanted; all if `None`.
        seeds: One seed per world; the worlds' own if `None`.

    Returns:
        What they showed, the rebuilt first frame included.
    """
    ways = [world.paths[path] for world in worlds]
    cameras = torch.stack([way.there_and_back if back else way.cam2world for way in ways])  # [B, P, 4, 4]
    engine = World(model, len(worlds), memory=memory)
    first = engine.reset(
        np.stack([way.frames[0] for way in ways]),
        cameras[:, 0],
        torch.stack([world.intrinsics for world in worlds]),
        [world.noise_seed for world in worlds] if seeds is None else seeds,
        depth=torch.stack([way.depth[0] for way in ways]),
    )
    return go(engine, first, cameras, decode)


def go(
    engine: World,
    first: Segment,
    cameras: Tensor,
    decode: Collection[int] | None = None,
) -> Rollout:
    """Lead worlds along cameras.

    Args:
        engine: B worlds that have just begun.
        first: What they showed at their first camera, decoded.
        cameras: [B, P, 4, 4], the first one included.
        decode: Places whose frames are wanted; all if `None`.

    Returns:
        What they showed.

    Raises:
        StateError: If the first segment was not decoded.
    """
    if first.frames is None:
        raise StateError("first must hold frames, got none")
    count, length, stride = cameras.shape[1], engine.segment_length, engine.model.frames_per_latent
    frames = np.zeros((len(cameras), count, *first.frames.shape[2:]), np.uint8)
    frames[:, 0] = first.frames[:, -1]
    latents, known = [first.latents[:, -1:].cpu()], [first.known[:, -1:].cpu()]
    for start in range(1, count, length):
        places = list(range(start, min(start + length, count)))
        rest = cameras[:, -1:].expand(-1, length - len(places), -1, -1)
        wanted = decode is None or any(place in decode for place in places)
        segment = engine.step(torch.cat([cameras[:, places], rest], dim=1), decode=wanted)
        if segment.frames is not None:
            frames[:, places] = segment.frames[:, stride - 1 :: stride][:, : len(places)]
        latents.append(segment.latents[:, : len(places)].cpu())
        known.append(segment.known[:, : len(places)].cpu())
    entries = torch.as_tensor(engine.memory.stats().entries).cpu()
    return Rollout(frames, torch.cat(latents, dim=1), torch.cat(known, dim=1), entries)


@torch.no_grad()
def encode_frames(model: WorldModel, frames: Array, batch: int = 16) -> Tensor:
    """Encode single frames.

    Args:
        model: Whose codec is used.
        frames: uint8 [N, H, W, 3].
        batch: Frames at once.

    Returns:
        float32 [N, C, h, w] on the CPU.
    """
    parts = [
        model.codec.encode(frames_to_tensor(frames[i : i + batch], model.device)[:, None])[:, 0].float().cpu()
        for i in range(0, len(frames), batch)
    ]
    return torch.cat(parts)


@torch.no_grad()
def decode_latents(model: WorldModel, latents: Tensor, batch: int = 16) -> Array:
    """Decode single latent frames; arguments and result mirror `encode_frames`."""
    parts = [
        tensor_to_frames(model.codec.decode(latents[i : i + batch, None].to(model.device))[:, 0])
        for i in range(0, len(latents), batch)
    ]
    return np.concatenate(parts)


def reconstruct(model: WorldModel, frames: Array, batch: int = 16) -> Array:
    """Send single frames uint8 [N, H, W, 3] through the codec and back."""
    return decode_latents(model, encode_frames(model, frames, batch), batch)


def with_sampling(
    model: WorldModel,
    steps: int | None = None,
    known_fraction: float | None = None,
    references: int | None = None,
    extras: bool = True,
    refine_steps: int | None = None,
    glimpses: int | None = None,
) -> WorldModel:
    """Change how a model is run; what is left out stays as it is.

    Args:
        model: Shares its weights with the result.
        steps: Passes through the network for a segment.
        known_fraction: Share of noise in the start of cells that the memory knows.
        references: Earlier views that the generator sees.
        extras: `False` hides offset, scale, view and depth from the condition.
        refine_steps: Passes through the refiner.
        glimpses: Views whose cells without a place in space are kept.

    Returns:
        The model under these settings.
    """
    asked = {"steps": steps, "known_fraction": known_fraction, "refine_steps": refine_steps}
    told: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    sampler = replace(model.config.sampler, **told)
    changes: dict[str, Any] = {"sampler": sampler, "extras": model.config.extras and extras}
    if references is not None:
        changes["references"] = references
    if glimpses is not None:
        changes["memory"] = replace(model.config.memory, glimpses=glimpses)
    return model.with_settings(**changes)
