"""Methods: the latent memory and what it is compared with, each as worlds over the same generator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from mirage_sim.baselines.memories import VOXELS, make_memory
from mirage_sim.baselines.weights import load_baseline
from mirage_sim.errors import InputError
from mirage_sim.evaluation.config import LABELS
from mirage_sim.memory import Memory
from mirage_sim.model.world_model import WorldModel
from mirage_sim.world import World


@dataclass(frozen=True)
class Method:
    """A way to remember.

    Attributes:
        name: One of `LABELS`.
        model: Networks; a baseline has a resampler and a memory branch of its own.
        memory: Whether there is a memory at all.
        make_memory: Makes an empty memory for so many worlds; the latent one if `None`.
    """

    name: str
    model: WorldModel
    memory: bool = True
    make_memory: Callable[[int], Memory] | None = None

    def worlds(self, count: int) -> World:
        """Make worlds that remember in this way."""
        return World(self.model, count, memory=self.memory, make_memory=self.make_memory)


def _empty(name: str, model: WorldModel, count: int) -> Memory:
    return make_memory(name, model.codec, model.config.memory, count, model.device)


def make_method(name: str, model: WorldModel) -> Method:
    """Set a method up.

    Args:
        name: One of `LABELS`.
        model: The embedded model, which all methods share but for their own parts.

    Returns:
        The method.

    Raises:
        InputError: If the name is unknown.
        FileFormatError: If the weights of a baseline are missing or belong to another model.
    """
    if name not in LABELS:
        raise InputError(f"methods must be among {sorted(LABELS)}, got {name!r}")
    if name == "latent":
        return Method(name, model)
    if name == "none":
        return Method(name, model, memory=False)
    own = load_baseline(model, "colours" if name in VOXELS else name)
    return Method(name, own, make_memory=partial(_empty, name, own))
