"""Environments: the world model as Gymnasium environments, one world or many over one shared model."""

from typing import TYPE_CHECKING

from mirage_sim.lazy import lazy_names

if TYPE_CHECKING:
    from mirage_sim.envs.explore import ExploreEnv
    from mirage_sim.envs.vector import ExploreVectorEnv

__all__ = ["ExploreEnv", "ExploreVectorEnv"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {"ExploreEnv": "mirage_sim.envs.explore", "ExploreVectorEnv": "mirage_sim.envs.vector"},
)
