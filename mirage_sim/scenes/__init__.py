"""Procedural furnished flats in PyBullet: where training clips, test clips and ground truth come from."""

from mirage_sim.scenes.scene import SKY_ID, Scene, View, make_scene
from mirage_sim.scenes.splits import (
    SPLITS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    first_seeds,
    split_of,
)

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
