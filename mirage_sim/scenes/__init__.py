"""Procedural furnished flats in PyBullet: where training clips, test clips and ground truth come from."""

from typing import TYPE_CHECKING

from mirage_sim.lazy import lazy_names
from mirage_sim.scenes.splits import (
    SPLITS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    first_seeds,
    split_of,
)

if TYPE_CHECKING:
    from mirage_sim.scenes.scene import SKY_ID, Scene, View, make_scene

__all__ = [
    "SKY_ID",
    "SPLITS",
    "TEST_SEEDS",
    "TRAIN_SEEDS",
    "VALIDATION_SEEDS",
    "Scene",
    "View",
    "first_seeds",
    "make_scene",
    "split_of",
]

__getattr__, __dir__ = lazy_names(
    __name__, dict.fromkeys(("SKY_ID", "Scene", "View", "make_scene"), "mirage_sim.scenes.scene")
)
