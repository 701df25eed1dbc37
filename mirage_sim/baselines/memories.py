"""Memories by name: what comparisons, benchmarks and the training of the baselines put side by side."""

from __future__ import annotations

import torch

from mirage_sim.baselines.appended import AppendedTokens
from mirage_sim.baselines.colour_points import ColourPoints
from mirage_sim.baselines.retrieved import RetrievedFrames
from mirage_sim.errors import InputError
from mirage_sim.memory import Memory, MemoryConfig
from mirage_sim.model.codec import Codec

VOXELS = {"colours-1cm": 0.01, "colours-3cm": 0.03}
"""Metres of the voxels that keep one colour point each."""


def make_memory(
    name: str, codec: Codec, config: MemoryConfig, num_worlds: int, device: torch.device | str = "cpu"
) -> Memory:
    """Make an empty memory of a baseline.

    Args:
        name: "appended", "retrieved" or one of `VOXELS`.
        codec: Of the model that it serves.
        config: Channels, dtype, sky and range, as for the latent memory.
        num_worlds: Number of worlds B.
        device: Where everything lives.

    Returns:
        The memory.

    Raises:
        InputError: If the name is unknown.
    """
    if name == "appended":
        return AppendedTokens(config, num_worlds, device)
    if name == "retrieved":
        return RetrievedFrames(config, num_worlds, device)
    if name not in VOXELS:
        raise InputError(f"name must be among {['appended', 'retrieved', *VOXELS]}, got {name!r}")
    return ColourPoints(codec, config, num_worlds, device, VOXELS[name])
