"""Imagine: one segment's latents from what was read, refined, and their depth straight from the latents."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mirage_sim.memory import MemoryRead, References
from mirage_sim.model.condition import build_condition, motion_context
from mirage_sim.model.sampler import flow_start, sample, start_fraction
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world.state import Context

ReferenceGroups = Sequence[tuple[Tensor, Tensor | None]]


def group_references(references: References, index: Tensor) -> ReferenceGroups:
    """Group worlds by their number of references, so that none attends to another's padding.

    Args:
        references: What the memory chose for all worlds.
        index: Worlds [b] that go on.

    Returns:
        Pairs of rows of `index` and their references [b', R', C, h, w], or `None` for none.
    """
    found = references.valid[index].sum(dim=1)  # [b]
    groups: list[tuple[Tensor, Tensor | None]] = []
    for number in sorted(set(found.tolist())):
        rows = (found == number).nonzero().flatten()
        chosen = index[rows]
        kept = references.views[chosen[:, None], references.index[chosen, :number]].float()
        groups.append((rows, kept if number else None))  # [b', R', C, h, w]
    return groups


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
        read: What the memory holds for the target cameras.
        poses: Target cameras.
        geometry: What `view_geometry` laid out for them.
        context: Preceding frames of the same worlds.
        references: Earlier views, by groups of worlds.
        noise: Standard normal noise, for the flow's start and for the refiner.

    Returns:
        float32 [b, T, C, h, w].

    Source: paper, denoising with memory; flows that start at the memory, and refining, ours.
    """
    settings = model.config
    patch = settings.generator.patch_hw
    fraction = start_fraction(read, settings.sampler.known_fraction)
    condition = build_condition(read, settings.extras)
    carried = model.resampler.carry(read, condition)
    start = flow_start(carried, noise[0], fraction)
    motion = motion_context(poses, context.poses, settings.generator.context_dim)
    latents = start.clone()
    unfinished = (fraction > 0).flatten(1).any(dim=1)  # [b], something is left to imagine
    lost = ~read.mask.flatten(1).any(dim=1)  # [b], nothing of the view is known
    for rows, views in references:
        for looks_back in (False, True):
            part = (lost[rows] | settings.preceding_with_memory) == looks_back  # [b']
            chosen = rows[part]
            if bool(unfinished[chosen].any()):  # all or none, so that no world depends on its batch-mates
                before = context.latents[chosen] if looks_back else None
                seen = views[part] if views is not None else None

                def velocity(
                    noisy: Tensor,
                    sigma: Tensor,
                    chosen: Tensor = chosen,
                    before: Tensor | None = before,
                    seen: Tensor | None = seen,
                ) -> Tensor:
                    flow: Tensor = model.generator(
                        noisy, sigma, motion[chosen], before, seen, condition[chosen]
                    )
                    return flow

                latents[chosen] = sample(velocity, start[chosen], fraction[chosen], patch, settings.sampler)
    if bool(read.mask.all()):
        return latents
    return model.refiner.refine(latents, read.mask, geometry, noise[1], settings.sampler.refine_steps)


def perceive_depth(
    model: WorldModel,
    latents: Tensor,  # [b, T, C, h, w]
    read: MemoryRead,
    geometry: Tensor,  # [b * T, 6, h, w]
) -> tuple[Tensor, Tensor]:
    """Depth of a segment; where the memory knows the surface, its depth is taken, so that scale cannot drift.

    Args:
        model: Networks and settings.
        latents: What was generated.
        read: What the memory holds for these cameras, or depths that the caller knows.
        geometry: What `view_geometry` laid out for these cameras.

    Returns:
        z-depth [b, T, h, w] in metres, the memory's `sky_depth` without a surface, and bool [b, T, h, w]: fit
        to remember.
    """
    sky = model.config.memory.sky_depth
    said = model.depth_head.predict(latents.flatten(0, 1), geometry)
    surface = (said.surface > 0.5).view_as(read.mask)
    sure = (said.spread < model.config.max_depth_spread).view_as(read.mask)
    said_depth = torch.where(surface, said.depth.view_as(read.depth), sky)
    fit = read.mask | torch.where(surface, sure, sky > 0)
    return torch.where(read.mask, read.depth, said_depth), fit
