"""Agents, registry: agents by name, fitted to an environment."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import gymnasium as gym

from mirage_sim.agents import plans
from mirage_sim.agents.fitting import steering_for, survey_for
from mirage_sim.agents.frontier import FrontierAgent, FrontierConfig
from mirage_sim.agents.protocol import Agent
from mirage_sim.agents.random import RandomAgent
from mirage_sim.agents.scripted import ScriptedAgent
from mirage_sim.errors import InputError

Builder = Callable[..., Agent]


def _random(env: gym.Env[Any, Any], steps: int, seed: int) -> Agent:
    return RandomAgent(env.action_space, seed)


def _frontier(env: gym.Env[Any, Any], steps: int, seed: int, **settings: Any) -> Agent:
    return FrontierAgent(steering_for(env), survey_for(env), FrontierConfig(**settings))


def _scripted(
    plan: Callable[..., Any], env: gym.Env[Any, Any], steps: int, seed: int, **settings: Any
) -> Agent:
    inspect.signature(plan).bind(None, steps, **settings)
    return ScriptedAgent(partial(plan, **settings), steering_for(env), steps)


AGENTS: dict[str, Builder] = {
    "random": _random,
    "orbit": partial(_scripted, plans.plan_orbit),
    "yaw_return": partial(_scripted, plans.plan_yaw_return),
    "out_and_back": partial(_scripted, plans.plan_out_and_back),
    "a_b_c_a": partial(_scripted, plans.plan_a_b_c_a),
    "waypoints": partial(_scripted, plans.plan_waypoints),
    "frontier": _frontier,
}
"""Builders by name; `make_agent` calls them."""


def make_agent(
    name: str, env: gym.Env[Any, Any], *, steps: int = 64, seed: int = 0, **settings: Any
) -> Agent:
    """Make an agent for an environment.

    Args:
        name: One of `AGENTS`.
        env: The environment that it will walk in; its action mode decides how the agent moves.
        steps: Moves of an episode, to which scripted walks fit their length.
        seed: Of agents that draw.
        settings: Sizes of the plan (see `plans`), or entries of `FrontierConfig`.

    Returns:
        The agent.

    Raises:
        InputError: If the name, a setting or the environment's action space is unknown.
    """
    if name not in AGENTS:
        raise InputError(f"name must be one of {sorted(AGENTS)}, got {name!r}")
    try:
        return AGENTS[name](env, steps, seed, **settings)
    except TypeError as error:
        raise InputError(f"settings must fit agent {name!r}: {error}") from error
