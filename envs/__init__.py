"""Environments: the world model as Gymnasium environments, one world or many over one shared model."""

from typing import TYPE_CHECKING

from mirage_sim.lazy import lazy_names
from mirage_sim.threads import is_worker, wait_passively

if TYPE_CHECKING:
    from mirage_sim.envs.explore import ExploreEnv
    from mirage_sim.envs.explore_v1 import ExploreEnvV1, ExploreVectorEnvV1
    from mirage_sim.envs.vector import ExploreVectorEnv

__all__ = ["ExploreEnv", "ExploreEnvV1", "ExploreVectorEnv", "ExploreVectorEnvV1"]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "ExploreEnv": "mirage_sim.envs.explore",
        "ExploreEnvV1": "mirage_sim.envs.explore_v1",
        "ExploreVectorEnv": "mirage_sim.envs.vector",
        "ExploreVectorEnvV1": "mirage_sim.envs.explore_v1",
    },
)

if is_worker():
    wait_passively()  # torch is not imported yet: this is the last moment to say how its threads wait
