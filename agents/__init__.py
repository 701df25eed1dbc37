"""Agents: what walks through generated places, by name."""

from typing import TYPE_CHECKING

from mirage_sim.agents.names import AGENT_NAMES
from mirage_sim.lazy import lazy_names

if TYPE_CHECKING:
    from mirage_sim.agents.frontier import FrontierAgent, FrontierConfig, survey_world
    from mirage_sim.agents.protocol import Agent, present_pose
    from mirage_sim.agents.random import RandomAgent
    from mirage_sim.agents.registry import AGENTS, make_agent
    from mirage_sim.agents.scripted import ScriptedAgent
    from mirage_sim.agents.steering import DiscreteSteering, PoseSteering, RelativeSteering, Steering

__all__ = [
    "AGENTS",
    "AGENT_NAMES",
    "Agent",
    "DiscreteSteering",
    "FrontierAgent",
    "FrontierConfig",
    "PoseSteering",
    "RandomAgent",
    "RelativeSteering",
    "ScriptedAgent",
    "Steering",
    "make_agent",
    "present_pose",
    "survey_world",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "FrontierAgent": "mirage_sim.agents.frontier",
        "FrontierConfig": "mirage_sim.agents.frontier",
        "survey_world": "mirage_sim.agents.frontier",
        "Agent": "mirage_sim.agents.protocol",
        "present_pose": "mirage_sim.agents.protocol",
        "RandomAgent": "mirage_sim.agents.random",
        "AGENTS": "mirage_sim.agents.registry",
        "make_agent": "mirage_sim.agents.registry",
        "ScriptedAgent": "mirage_sim.agents.scripted",
        "DiscreteSteering": "mirage_sim.agents.steering",
        "PoseSteering": "mirage_sim.agents.steering",
        "RelativeSteering": "mirage_sim.agents.steering",
        "Steering": "mirage_sim.agents.steering",
    },
)
