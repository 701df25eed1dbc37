"""Episodes: what the core keeps of every world beside the `World` itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.envs.reward import nothing_paid

Array = np.ndarray[Any, Any]


@dataclass
class Episodes:
    """What the core knows of B worlds beside the `World` itself.

    Attributes:
        seeds: Seed of every running episode, `None` before the first.
        first_pose: Where each episode began, [B, 4, 4].
        latest: Everything an observation may show, by key, each [B, ...].
        frames: Pixel frames of the latest segment, uint8 [B, F, H, W, 3], all of them.
        collision: bool [B], whether the latest motion was stopped.
        ended: bool [B], whether the latest action ended the episode.
        paid: What Explore-v1 paid for, int64 [M] of every world, see `pay`.
        timings_ms: Milliseconds of each part of the latest call in which a world took part.
    """

    seeds: list[int | None]
    first_pose: Tensor
    latest: dict[str, Array]
    frames: list[Array]
    collision: Array
    ended: Array
    paid: list[Tensor]
    timings_ms: list[dict[str, float]]

    @classmethod
    def empty(cls, count: int, shapes: dict[str, tuple[int, ...]], device: torch.device) -> Episodes:
        """Episodes that have not begun."""
        latest = {
            name: np.zeros((count, *shape), np.uint8 if name == "rgb" else np.float32)
            for name, shape in shapes.items()
        }
        frames = [latest["rgb"][row : row + 1].copy() for row in range(count)]
        poses = torch.eye(4, dtype=torch.float32, device="cpu").repeat(count, 1, 1)
        unset, paid = np.zeros(count, np.bool_), [nothing_paid(device) for _ in range(count)]
        laps: list[dict[str, float]] = [{} for _ in range(count)]
        return cls([None] * count, poses, latest, frames, unset, unset.copy(), paid, laps)

    def copy(self, rows: Sequence[int]) -> Episodes:
        """An independent copy of some worlds' episodes."""
        index = list(rows)
        return Episodes(
            [self.seeds[row] for row in index],
            self.first_pose[index].clone(),
            {name: value[index].copy() for name, value in self.latest.items()},
            [self.frames[row].copy() for row in index],
            self.collision[index].copy(),
            self.ended[index].copy(),
            [self.paid[row] for row in index],  # never changed in place
            [dict(self.timings_ms[row]) for row in index],
        )

    def put(self, rows: Sequence[int], other: Episodes) -> None:
        """Replace some worlds' episodes by those of `other`, of as many worlds."""
        for place, row in enumerate(rows):
            for name, mine in vars(self).items():
                theirs = getattr(other, name)
                pairs = ((mine[key], theirs[key]) for key in mine) if name == "latest" else ((mine, theirs),)
                for held, given in pairs:
                    held[row] = given[place]
