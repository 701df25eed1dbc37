"""Offload: weights wait in the host's memory and come to the card when they are needed, for smaller cards.

By networks, the generator leaves while pictures are encoded and decoded. By blocks, only two blocks of the
generator are on the card at a time: the next one is copied while one computes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn

from mirage_sim.libraries import from_library
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.config import check_offload
from mirage_sim.model.generator import Generator


def waiting_bytes(sizes: Sequence[int]) -> int:
    """Bytes that wait by blocks, given those of every block: all but two of the largest."""
    return sum(sizes) - 2 * max(sizes)


def offload_generator(generator: Generator, codec: WanCodec, device: torch.device, kind: str) -> None:
    """Let the generator's weights wait in the host's memory.

    Args:
        generator: Changed in place.
        codec: On the device, where it stays.
        device: Where both compute.
        kind: "networks" or "blocks".

    Raises:
        InputError: If the kind is unknown, or the device needs no offload.
    """
    check_offload(kind, str(device))
    if kind == "networks":
        cpu_offload_with_hook = from_library("accelerate", "cpu_offload_with_hook")
        _, generator_leaves = cpu_offload_with_hook(generator, device)
        cpu_offload_with_hook(codec.autoencoder, device, prev_module_hook=generator_leaves)
    else:
        _offload_blocks(generator, device)


def _offload_blocks(generator: Generator, device: torch.device) -> None:
    blocks = nn.ModuleList(generator.blocks)
    held = {id(parameter) for parameter in blocks.parameters()}
    for parameter in generator.parameters():
        if id(parameter) not in held:
            parameter.data = parameter.data.to(device)
    for buffer in generator.buffers():
        buffer.data = buffer.data.to(device)
    from_library("diffusers.hooks", "apply_group_offloading")(
        nn.ModuleDict({"blocks": blocks}),
        onload_device=device,
        offload_type="block_level",
        num_blocks_per_group=1,
        use_stream=True,
    )
    registry = from_library("diffusers.hooks", "HookRegistry")
    hooks = [registry.check_if_exists_or_initialize(block).get_hook("group_offloading") for block in blocks]
    for hook, following in pairwise(hooks):
        hook.next_group = following.group  # the generator is not walked through by a forward that could tell
        following.group.onload_self = False
