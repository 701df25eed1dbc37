"""Environments: the world model as Gymnasium environments, one world or many over one shared model."""

from mirage_sim.envs.explore import ExploreEnv
from mirage_sim.envs.explore_v1 import ExploreEnvV1, ExploreVectorEnvV1
from mirage_sim.envs.vector import ExploreVectorEnv

__all__ = ["ExploreEnv", "ExploreEnvV1", "ExploreVectorEnv", "ExploreVectorEnvV1"]
