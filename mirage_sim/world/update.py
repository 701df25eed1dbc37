"""Update: what was made is written where the memory does not hold it as well.

Source: paper, section on the life of the memory; writing only what is new or finer is ours.
"""

from __future__ import annotations

from functools import partial

from torch import Tensor

from mirage_sim.memory import Memory, MemoryConfig, MemoryRead
from mirage_sim.world.views import Views, among_all


def update(
    memory: Memory,
    config: MemoryConfig,
    latents: Tensor,  # [b, T, C, h, w]
    read: MemoryRead,
    depth: Tensor,  # [b, T, h, w]
    trusted: Tensor,  # [b, T, h, w]
    views: Views,
    chosen: Tensor,  # [B]
    shown: tuple[Tensor | None, Tensor | None],  # [b, T, 3, H, W], [b, T, H, W]
) -> Tensor:
    """Write the segment of the worlds that go on.

    Args:
        memory: Of all worlds.
        config: Its settings.
        latents: What was made.
        read: What the memory held for these cameras.
        depth: Of what was made, in metres.
        trusted: Cells fit to remember.
        views: Cameras of all worlds.
        chosen: Which worlds go on.
        shown: Pictures and their depth in pixels, for a memory of pictures; `None` where there is none.

    Returns:
        Newly seen surface, float32 [B] in square metres.
    """
    whole = partial(among_all, index=chosen.nonzero().flatten(), worlds=len(chosen))
    finer = read.log_scale > config.refine_log_scale
    keep = trusted & (~read.mask | finer) if config.fuse else trusted
    written = (whole(latents), whole(depth), *views, whole(keep), chosen, whole(~read.mask))
    pictures, pixel_depth = shown
    pixels = (
        whole(pictures) if pictures is not None and memory.wants_frames else None,
        whole(pixel_depth) if pixel_depth is not None else None,
    )
    return memory.write(*written, *pixels).new_area
