"""Agents: by name, in every action mode, without a network."""

from __future__ import annotations

import math
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch

from mirage_sim.agents import AGENTS, Agent, FrontierAgent, ScriptedAgent, make_agent, present_pose
from mirage_sim.agents.fitting import steering_for
from mirage_sim.errors import InputError, StateError
from mirage_sim.geometry import yaw_pitch
from tests.agents.kinematics import CameraEnv, walk

MODES = ("relative", "pose", "discrete")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", sorted(set(AGENTS) - {"random"}))
def test_every_agent_walks_in_every_mode(name: str, mode: str) -> None:
    env = CameraEnv(mode)
    agent = make_agent(name, env, steps=24, seed=3)
    assert isinstance(agent, Agent)
    poses = walk(env, agent, 60)
    assert not env.stopped
    moved = (poses[1:] - poses[:-1]).abs().amax(dim=(1, 2)) > 1e-5
    assert moved.float().mean() > 0.9, "an agent should not stand about"


@pytest.mark.parametrize("mode", ["relative", "pose"])
@pytest.mark.parametrize("name", ["orbit", "yaw_return", "out_and_back", "a_b_c_a"])
def test_walks_that_return_do_so_at_the_asked_step(name: str, mode: str) -> None:
    env = CameraEnv(mode)
    settings = {"degrees": 90.0} if name == "yaw_return" else {}
    steps = 96 if name == "orbit" else 24
    poses = walk(env, make_agent(name, env, steps=steps, **settings), steps)
    torch.testing.assert_close(poses[-1], poses[0], rtol=0, atol=1e-4)
    assert (poses[steps // 2] - poses[0]).abs().max() > 0.3


@pytest.mark.parametrize("mode", ["relative", "pose"])
@pytest.mark.parametrize("name", ["yaw_return", "out_and_back"])
def test_the_way_back_meets_the_poses_of_the_way_out(name: str, mode: str) -> None:
    env = CameraEnv(mode)
    poses = walk(env, make_agent(name, env, steps=20), 20)
    torch.testing.assert_close(poses.flip(0), poses, rtol=0, atol=1e-5)


def test_discrete_out_and_back_returns_to_the_place() -> None:
    env = CameraEnv("discrete", pitch=0.0)
    poses = walk(env, make_agent("out_and_back", env, steps=24, distance=1.5), 40)
    distance = torch.linalg.vector_norm(poses[:, :2, 3] - poses[0, :2, 3], dim=-1)
    assert distance.max() > 1.2
    assert distance[int(distance.argmax()) :].min() < 0.2


def test_waypoints_pass_their_corners() -> None:
    env = CameraEnv("relative", yaw=0.0, pitch=0.0)
    poses = walk(env, make_agent("waypoints", env, points=((0.5, 0.0), (0.5, 0.5))), 30)
    for x, y in ((1.5, 2.0), (1.5, 2.5)):
        corner = torch.tensor([x, y, 1.5])
        assert torch.linalg.vector_norm(poses[:, :3, 3] - corner, dim=-1).min() < 1e-4


def test_a_wall_does_not_hold_a_walk_up() -> None:
    env = CameraEnv("relative", wall=1.4, yaw=0.0, pitch=0.0)
    poses = walk(env, make_agent("out_and_back", env, steps=24, distance=1.2), 24)
    assert poses[:, 0, 3].max() > 1.3
    torch.testing.assert_close(poses[-1], poses[0], rtol=0, atol=1e-4)


def test_random_agents_repeat_by_seed_and_leave_the_env_alone() -> None:
    env = CameraEnv("relative")
    env.action_space.seed(5)
    expected = env.action_space.sample()
    env.action_space.seed(5)
    actions = [[make_agent("random", env, seed=seed).act({}, {}) for _ in range(2)] for seed in (1, 1, 2)]
    np.testing.assert_array_equal(actions[0], actions[1])
    assert not np.array_equal(actions[0], actions[2])
    np.testing.assert_array_equal(env.action_space.sample(), expected)


def test_the_explorer_turns_to_the_unknown_and_then_walks_the_free_way() -> None:
    def survey(cam2world: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        yaw, _ = yaw_pitch(cam2world)
        unknown = (torch.remainder(yaw, math.tau) - 2.0).abs() < 0.2
        seen = bool(seen_from) and abs(seen_from[-1] - 2.0) < 0.3
        known = torch.where(unknown & ~torch.tensor(seen), 0.0, 1.0)
        return known, torch.where((yaw - 2.0).abs() < 0.3, 5.0, 0.5)

    seen_from: list[float] = []
    env = CameraEnv("relative", yaw=0.0, pitch=0.0)
    agent = FrontierAgent(steering_for(env), survey)
    observation, info = env.reset()
    agent.reset(observation, info)
    for _ in range(16):
        observation, _, _, _, info = env.step(agent.act(observation, info))
        seen_from.append(float(yaw_pitch(present_pose(observation, info))[0]))
    assert abs(seen_from[-1] - 2.0) < 0.3
    gone = present_pose(observation, info)[:2, 3] - torch.tensor([1.0, 2.0])
    assert float(torch.linalg.vector_norm(gone)) > 1.0


def test_unknown_names_settings_and_spaces_are_named() -> None:
    env = CameraEnv("relative")
    with pytest.raises(InputError, match="name must be one of"):
        make_agent("nobody", env)
    with pytest.raises(InputError, match="settings must fit agent 'orbit'"):
        make_agent("orbit", env, colour="red")
    with pytest.raises(InputError, match="settings must fit agent 'frontier'"):
        make_agent("frontier", env, colour="red")
    with pytest.raises(InputError, match="steps must be at least 1"):
        make_agent("orbit", env, steps=0)
    with pytest.raises(InputError, match="points must be"):
        walk(env, make_agent("waypoints", env, points=((1.0, 2.0, 3.0),)), 1)
    env.action_space = gym.spaces.Box(-1, 1, (3,))
    with pytest.raises(InputError, match="env must have relative, pose or discrete"):
        make_agent("orbit", env)


def test_acting_before_reset_and_without_a_pose_is_refused() -> None:
    env = CameraEnv("relative")
    for name in ("orbit", "frontier"):
        with pytest.raises(StateError, match="act needs reset first"):
            make_agent(name, env).act({}, {})
    with pytest.raises(InputError, match="observation must hold cam2world"):
        make_agent("orbit", env).reset({"rgb": 0}, {})


def test_a_plan_that_stays_where_it_is_is_refused() -> None:
    def stay(start: Any, steps: int) -> Any:
        return start.expand(2, 4, 4)

    env = CameraEnv("discrete")
    observation, info = env.reset()
    agent = ScriptedAgent(stay, steering_for(env), 4)
    agent.reset(observation, info)
    with pytest.raises(InputError, match="plan must lead to poses"):
        agent.act(observation, info)
