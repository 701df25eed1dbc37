"""Imagine: one segment's latents from what was read, refined, and their depth straight from the latents."""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.memory import MemoryRead
from mirage_sim.model.condition import build_condition, motion_context, published_condition
from mirage_sim.model.sampler import flow_start, sample, start_fraction
from mirage_sim.model.world_model import WorldModel
from mirage_sim.perception.protocol import Seen
from mirage_sim.world.references import ReferenceGroups
from mirage_sim.world.state import Context


@torch.inference_mode()
def imagine(
    model: WorldModel,
    read: MemoryRead,
    poses: Tensor,  # [b, T, 4, 4]
    geometry: Tensor,  # [b * T, 6, h, w]
    context: Context,
    references: ReferenceGroups,
    noise: Tensor,  # [2, b, T, C, h, w]
) -> Tensor:
    """Draw the latents of a segment.

    Args:
        model: Networks and settings.
        read: What the memory holds for the cameras of the sequence, see `sequence_cameras`.
        poses: Target cameras.
        geometry: What `view_geometry` laid out for them.
        context: Preceding frames of the same worlds.
        references: Earlier views, by groups of worlds.
        noise: Standard normal noise, for the flow's start and for the refiner.

    Returns:
        float32 [b, T, C, h, w].

    Source: paper, denoising with memory; flows that start at the memory, and refining, ours.
    """
    settings, patch = model.config, model.config.generator.patch_hw
    condition = lay_out_condition(model, read)  # [b, O + T + P, Cc, h, w]
    clean, target = settings.overlap, settings.overlap + poses.shape[1]
    read = read.frames(slice(clean, target))
    fraction = start_fraction(read, settings.sampler.known_fraction)  # [b, T, h, w]
    carried = read.latents
    if settings.resampler is not None:
        carried = model.resampler.carry(read, condition[:, clean:target])
    start = flow_start(carried, noise[0], fraction)
    latents = start.clone()
    last = context.latents[:, settings.preceding :]  # [b, O, C, h, w]
    start = torch.cat([last, start], dim=1)
    shares = torch.cat([fraction.new_zeros(len(last), clean, *fraction.shape[2:]), fraction], dim=1)
    told = context.prompt
    if settings.prompt_tokens == 0:
        told = motion_context(poses, context.poses, settings.generator.context_dim)
    unfinished = (fraction > 0).flatten(1).any(dim=1)  # [b], something is left to imagine
    lost = ~read.mask.flatten(1).any(dim=1)  # [b], nothing of the view is known
    for rows, views in references:
        for looks_back in (False, True):
            part = (lost[rows] | settings.preceding_with_memory) == looks_back  # [b']
            chosen = rows[part]
            if bool(unfinished[chosen].any()):  # all or none, so that no world depends on its batch-mates
                before = context.latents[chosen, : settings.preceding] if looks_back else None
                seen = views[part] if views is not None else None
                hinted = condition[chosen] if looks_back else condition[chosen, :target]

                def velocity(
                    noisy: Tensor,
                    sigma: Tensor,
                    chosen: Tensor = chosen,
                    before: Tensor | None = before,
                    seen: Tensor | None = seen,
                    hinted: Tensor = hinted,
                ) -> Tensor:
                    given = (noisy, sigma, told[chosen], before, seen, hinted)
                    flow: Tensor = model.generator(*given, settings.hint_scale)
                    return flow

                drawn = sample(velocity, start[chosen], shares[chosen], patch, settings.sampler)
                latents[chosen] = drawn[:, clean:]
    if settings.refiner is None or bool(read.mask.all()):
        return latents
    return model.refiner.refine(latents, read.mask, geometry, noise[1], settings.sampler.refine_steps)


def lay_out_condition(model: WorldModel, read: MemoryRead) -> Tensor:
    """Channels that the branch sees, [b, T, Cc, h, w], of what was read for T frames."""
    if model.config.published_condition:
        return published_condition(read, model.constant(read.mask.shape[1]))
    return build_condition(read, model.config.extras)


def sequence_cameras(model: WorldModel, poses: Tensor, context: Context) -> Tensor:
    """Cameras for which the memory is read: the clean frame before the target, the target, what precedes.

    Args:
        model: Its settings tell which of them.
        poses: Target cameras, [b, T, 4, 4].
        context: Of the same worlds.

    Returns:
        [b, O + T + P, 4, 4].

    Source: paper, section on the generator's sequence.
    """
    settings = model.config
    last = context.poses[:, settings.preceding :]
    preceding = context.poses[:, : settings.preceding if settings.hint_preceding else 0]
    return torch.cat([last, poses, preceding], dim=1)


@torch.inference_mode()
def perceive_depth(
    model: WorldModel,
    latents: Tensor,  # [b, T, C, h, w]
    read: MemoryRead,
    geometry: Tensor,  # [b * T, 6, h, w]
    frames: Tensor | None,  # [b, T, 3, H, W]
    intrinsics: Tensor,  # [b, 3, 3]
) -> tuple[Tensor, Tensor]:
    """Depth of a segment; where the memory knows the surface, its depth is taken, so that scale cannot drift.

    Args:
        model: Networks and settings.
        latents: What was generated.
        read: What the memory holds for these cameras, or depths that the caller knows.
        geometry: What `view_geometry` laid out for these cameras.
        frames: Decoded pictures in [-1, 1], where the model needs them to perceive.
        intrinsics: In pixels.

    Returns:
        z-depth [b, T, h, w] in metres, the memory's `sky_depth` without a surface, and bool [b, T, h, w]: fit
        to remember.
    """
    memory = model.config.memory
    pictures = frames.flatten(0, 1) if frames is not None else None
    seen = Seen(
        latents=latents.flatten(0, 1),
        geometry=geometry,
        known_depth=read.depth.flatten(0, 1),
        known=(read.mask & ~memory.is_sky(read.depth)).flatten(0, 1),
        frames=pictures,
        intrinsics=intrinsics[:, None].expand(-1, latents.shape[1], -1, -1).flatten(0, 1),
    )
    said = model.depth_estimator.estimate(seen)
    surface, movable = said.surface, None
    if model.segmenter is not None and pictures is not None:
        segments = model.segmenter.segment(pictures, model.latent_hw)
        surface, movable = surface & ~segments.sky, segments.movable
    depth = torch.where(surface, said.depth, memory.sky_depth).view_as(read.depth)
    fit = torch.where(surface, said.sure, memory.sky_depth > 0).view_as(read.mask) | read.mask
    if movable is not None:
        fit = fit & ~movable.view_as(fit)
    return torch.where(read.mask, read.depth, depth), fit
