"""Config: how worlds are run, beside what belongs to the model."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class WorldConfig:
    """How worlds are run, beside the model's own settings.

    Attributes:
        memory: Whether the memory is read and written at all.
        reference_voxel: Edge in metres of the voxels by whose overlap references are chosen.
        reference_overlap: Least overlap of a reference.
    """

    memory: bool = True
    reference_voxel: float = 0.3
    reference_overlap: float = 0.04
