"""Agents: what walks through generated places, by name."""

from mirage_sim.agents.frontier import FrontierAgent, FrontierConfig, survey_world
from mirage_sim.agents.protocol import Agent, present_pose
from mirage_sim.agents.random import RandomAgent
from mirage_sim.agents.registry import AGENTS, make_agent
from mirage_sim.agents.scripted import ScriptedAgent
from mirage_sim.agents.steering import DiscreteSteering, PoseSteering, RelativeSteering, Steering

__all__ = [
    "AGENTS",
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
