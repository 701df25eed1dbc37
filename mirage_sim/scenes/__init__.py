"""Procedural furnished flats: where training clips, test clips and ground truth come from."""

from mirage_sim.scenes.renderer import RENDERER, SKY_ID, View
from mirage_sim.scenes.scene import Scene, make_scene
from mirage_sim.scenes.splits import (
    SPLITS,
    TEST_SEEDS,
    TRAIN_SEEDS,
    VALIDATION_SEEDS,
    first_seeds,
    split_of,
)

__all__ = [
    "RENDERER",
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
