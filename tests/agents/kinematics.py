"""An environment that only moves a camera, by the real actions: agents are tested without any network."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import torch

from mirage_sim.envs.actions import make_actions
from mirage_sim.geometry import from_yaw_pitch


class CameraEnv(gym.Env[Any, Any]):
    """A camera in empty space, with a wall at `wall` metres along x if one is asked for."""

    def __init__(self, mode: str, wall: float = np.inf, yaw: float = 0.4, pitch: float = -0.2) -> None:
        self._actions = make_actions(mode)
        self.action_space = self._actions.space
        self.observation_space = gym.spaces.Dict({"cam2world": gym.spaces.Box(-np.inf, np.inf, (4, 4))})
        self._start = from_yaw_pitch((1.0, 2.0, 1.5), yaw, pitch)
        self._wall = wall
        self.stopped = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.pose, self.stopped = self._start, False
        return {"cam2world": self.pose.numpy()}, {"coverage": 0.5}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        parsed = self._actions.parse("action", action, ())
        self.stopped = bool(self._actions.stops(parsed)[0])
        target = self._actions.targets(self.pose[None], parsed)[0]
        collision = bool(target[0, 3] > self._wall)
        if collision:
            target = torch.cat((torch.cat((target[:3, :3], self.pose[:3, 3:]), 1), target[3:]))
        self.pose = target
        return {"cam2world": self.pose.numpy()}, 0.0, self.stopped, False, {"collision": collision}


def walk(env: gym.Env[Any, Any], agent: Any, steps: int) -> torch.Tensor:
    """Let an agent walk; cam2world [steps + 1, 4, 4]."""
    observation, info = env.reset(seed=0)
    agent.reset(observation, info)
    poses = [torch.as_tensor(observation["cam2world"])]
    for _ in range(steps):
        observation, _, _, _, info = env.step(agent.act(observation, info))
        poses.append(torch.as_tensor(observation["cam2world"]))
    return torch.stack(poses)
