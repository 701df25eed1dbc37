"""References: earlier views that the generator sees, chosen by 3D overlap with the view to come.

Source: paper, section on the generator's sequence.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mirage_sim.memory import Memory, References
from mirage_sim.world.config import WorldConfig
from mirage_sim.world.views import Views

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


def choose_references(
    memory: Memory, config: WorldConfig, count: int, views: Views, hw: tuple[int, int], index: Tensor
) -> ReferenceGroups:
    """Choose references for the last view of every world that goes on.

    Args:
        memory: Of all worlds.
        config: Tells whether it is used, and which overlap makes a reference.
        count: References of a world at most.
        views: Cameras of all worlds.
        hw: Rows and columns of cells.
        index: Worlds [b] that go on.

    Returns:
        See `group_references`.
    """
    if not config.memory or count == 0:
        return [(torch.arange(len(index), device=index.device, dtype=torch.int64), None)]
    camera = (views.cam2world[:, -1], views.intrinsics[:, -1], hw)
    worlds = torch.zeros(memory.num_worlds, dtype=torch.bool, device=index.device)
    worlds[index] = True
    found = memory.references(*camera, count, config.reference_voxel, config.reference_overlap, worlds)
    return group_references(found, index)
