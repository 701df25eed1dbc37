"""Procedural furnished flats: where training clips, test clips and ground truth come from."""

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
    from mirage_sim.scenes.renderer import RENDERER, SKY_ID, View
    from mirage_sim.scenes.scene import Scene, make_scene

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

_RENDERER, _SCENE = "mirage_sim.scenes.renderer", "mirage_sim.scenes.scene"
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "RENDERER": _RENDERER,
        "SKY_ID": _RENDERER,
        "View": _RENDERER,
        "Scene": _SCENE,
        "make_scene": _SCENE,
    },
)
