"""Explore: whether the rules of `Mirage/Explore-v1` make exploring pay, and hold the agent inside.

In flats of a split: a walk through rooms and turns in place from the same start, random actions, and a walk
straight at a window. What the agent passes through is judged by `crossings`, not by the environment.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mirage_sim.agents.random import RandomAgent
from mirage_sim.envs import ExploreEnvV1
from mirage_sim.envs.body import BodyConfig, free_of_patches
from mirage_sim.evaluation.config import ExploreRunConfig
from mirage_sim.evaluation.crossings import Point, crossed_patches, segments_cross
from mirage_sim.evaluation.metrics import mean_and_interval
from mirage_sim.evaluation.report import Aim, format_table, show
from mirage_sim.geometry import from_yaw_pitch, project, yaw_pitch
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import Scene, first_seeds, make_scene
from mirage_sim.scenes.layout import WALL_THICKNESS, Opening, Room

Array = np.ndarray[Any, Any]
Act = Callable[[dict[str, Array], dict[str, Any]], Any]

_TURN = np.array([0.0, 0.0, 0.0, 1.0, 0.0], np.float32)
_AHEAD = np.array([1.0, 0.0, 0.0, 0.0, 0.0], np.float32)


class Walker:
    """Walks where the memory leaves room, preferably ahead and to where it has not been."""

    def __init__(self, env: ExploreEnvV1, headings: int = 24, reach: float = 3.0) -> None:
        """Wait for an episode.

        Args:
            env: With relative actions; its memory is asked.
            headings: Directions looked into, evenly around.
            reach: Metres looked ahead.
        """
        self._env, self._reach = env, reach
        self._angles = torch.arange(headings) * (math.tau / headings)  # [N]
        self._trail: list[Tensor] = []
        self._goal: float | None = None

    def act(self, observation: dict[str, Array], info: dict[str, Any]) -> Array:
        """Go on towards a heading while there is room, turning to it at the same time."""
        pose = torch.from_numpy(observation["cam2world"])
        eye, yaw = pose[:3, 3].double(), float(yaw_pitch(pose)[0])
        self._trail.append(eye[:2])
        if self._goal is None or self._room(eye, self._goal) < 0.5:
            self._goal = self._choose(eye, yaw)
        turn = math.remainder(self._goal - yaw, math.tau)
        action = np.zeros(5, np.float32)
        action[3] = np.clip(turn / math.radians(15.0), -1.0, 1.0)
        if abs(turn) < math.radians(60.0):
            action[:2] = math.cos(turn), math.sin(turn)
        return action

    def _choose(self, eye: Tensor, yaw: float) -> float:
        def worth(angle: float) -> float:
            along = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
            ahead = eye[:2] + along * torch.tensor([[1.0], [2.0]], dtype=torch.float64)  # [2, 2]
            passed = torch.cdist(ahead, torch.stack(self._trail)) < 0.8  # [2, places]
            turn = abs(math.remainder(angle - yaw, math.tau))
            return self._room(eye, angle) - 0.5 * turn - 0.1 * float(passed.sum())

        return max((float(angle) + yaw for angle in self._angles), key=worth)

    def _room(self, eye: Tensor, angle: float) -> float:
        """Metres that are free in a direction."""
        motion = self._reach * torch.tensor([math.cos(angle), math.sin(angle), 0.0], dtype=torch.float64)
        patches = self._env.core.world.memory.patches(0)
        return self._reach * free_of_patches(patches, eye, motion, BodyConfig())


def evaluate_explore(model: WorldModel, config: ExploreRunConfig) -> dict[str, Any]:
    """Measure.

    Args:
        model: Generates the flats from their first view on.
        config: What is measured.

    Returns:
        `worlds` (figures of each flat), totals, and `aims`.
    """
    arguments: dict[str, Any] = {"observations": ("depth", "cam2world"), "collide": config.collide}
    envs = {mode: ExploreEnvV1(model, action_mode=mode, **arguments) for mode in ("relative", "discrete")}
    rows = [_flat(envs, scene_seed, config) for scene_seed in first_seeds(config.split, config.worlds)]
    total = {name: sum(row[name] for row in rows) for name in rows[0] if name not in ("flat", "actions")}
    walk, turn = total["walk_reward"], total["turn_reward"]
    steps = total["random_steps"]
    figures = {
        "walk_over_turn": walk / turn if turn > 0 else float("inf"),
        "walk_reward": _estimate([row["walk_reward"] for row in rows]),
        "turn_reward": _estimate([row["turn_reward"] for row in rows]),
        "walk_metres": total["walk_metres"] / len(rows),
        "random_steps": steps,
        "random_ends": total["random_ends"],
        "surfaces_crossed": total["crossed"],
        "steps_judged": steps + total["walk_steps"] + total["window_steps"],
        "windows_crossed": total["windows_crossed"],
        "walks_at_windows": total["window_walks"],
        "random_outside": total["random_outside"] / steps,
        "walk_outside": total["walk_outside"] / total["walk_steps"],
    }
    aims = [
        Aim("reward of walks over that of turns in place", figures["walk_over_turn"], low=2.0),
        Aim("random episodes that ended early", float(total["random_ends"]), high=0.0),
        Aim("steps through a surface that the memory held", float(total["crossed"]), high=0.0),
        Aim("steps through a window that was seen", float(total["windows_crossed"]), high=0.0),
    ]
    return figures | {"worlds": rows, "aims": [aim.as_dict() for aim in aims]}


def _estimate(values: list[float]) -> dict[str, float]:
    mean, half = mean_and_interval(torch.tensor(values))
    return {"mean": mean, "ci95": half}


def _flat(envs: dict[str, ExploreEnvV1], scene_seed: int, config: ExploreRunConfig) -> dict[str, Any]:
    """Measure in one flat."""
    relative = envs["relative"]
    modes = sorted(envs)
    chosen = modes[scene_seed % len(modes)]
    row: dict[str, Any] = {"flat": scene_seed, "actions": chosen}
    start = {"scene_seed": scene_seed}
    agent = RandomAgent(envs[chosen].action_space, config.seed + scene_seed)
    with make_scene(scene_seed) as scene:
        turn = _run(relative, scene, config.seed, start, config.steps, lambda *_: _TURN)
        walker = Walker(relative)
        walk = _run(relative, scene, config.seed, start, config.steps, walker.act)
        random = _run(envs[chosen], scene, config.seed, start, config.random_steps, agent.act)
        pose = facing_a_window(scene)
        at_window = None
        if pose is not None:
            begin = start | {"cam2world": pose.numpy()}
            at_window = _run(relative, scene, config.seed, begin, 16, lambda *_: _AHEAD)
    for name, run in (("turn", turn), ("walk", walk), ("random", random)):
        row |= {f"{name}_{key}": run[key] for key in ("reward", "metres", "steps", "outside", "ends")}
    runs = [walk, random, *([at_window] if at_window is not None else [])]
    row["crossed"] = sum(run["crossed"] for run in runs)
    row["windows_crossed"] = sum(run["windows_crossed"] for run in runs)
    row["window_walks"] = int(at_window is not None)
    row["window_steps"] = at_window["steps"] if at_window is not None else 0
    return row


def _run(
    env: ExploreEnvV1, scene: Scene, seed: int, start: dict[str, Any], steps: int, act: Act
) -> dict[str, Any]:
    """Walk, and judge every step."""
    observation, info = env.reset(seed=seed, options=start)
    hw = (env.core.model.config.height, env.core.model.config.width)
    windows = seen_windows(scene, torch.from_numpy(observation["cam2world"]), info["intrinsics"], hw)
    run = {"reward": 0.0, "metres": 0.0, "steps": 0, "outside": 0, "ends": 0, "crossed": 0}
    run["windows_crossed"] = 0
    while run["steps"] < steps and not run["ends"]:
        held = env.core.world.memory.patches(0)
        before = observation["cam2world"][:3, 3].tolist()
        observation, reward, terminated, truncated, info = env.step(act(observation, info))
        after = observation["cam2world"][:3, 3].tolist()
        run["reward"] += float(reward)
        run["metres"] += math.dist(before[:2], after[:2])
        run["steps"] += 1
        run["ends"] += int(terminated or truncated)
        run["outside"] += int(not _inside(scene, after))
        run["crossed"] += int(bool(crossed_patches(held, before, after)))
        run["windows_crossed"] += int(any(segments_cross(before[:2], after[:2], *ends) for ends in windows))
    return run


def _inside(scene: Scene, point: list[float]) -> bool:
    return 0 <= point[0] <= scene.layout.width and 0 <= point[1] <= scene.layout.depth


def _windows(scene: Scene) -> list[tuple[Room, int, Opening]]:
    """All windows, with the room and the wall that they are in."""
    return [
        (room, wall, hole)
        for room in scene.rooms
        for wall in range(4)
        for hole in room.openings[wall]
        if hole.kind == "window"
    ]


def seen_windows(
    scene: Scene, cam2world: Tensor, intrinsics: Any, hw: tuple[int, int]
) -> list[tuple[Point, Point]]:
    """Find the windows of a flat through which a view shows the sky.

    Args:
        scene: The flat.
        cam2world: [4, 4].
        intrinsics: In pixels, [3, 3].
        hw: Height and width of the view in pixels.

    Returns:
        Their ends, (x, y) in the middle of the wall.
    """
    matrix = torch.as_tensor(intrinsics)
    depth = scene.render(cam2world, matrix, hw).depth
    seen = []
    for room, wall, hole in _windows(scene):
        u = 0.75 * hole.u0 + 0.25 * hole.u1  # beside the bar in the middle
        pane = torch.tensor([[*room.wall_point(wall, u), (hole.v0 + hole.v1) / 2]])
        where, distance = project(pane, cam2world, matrix)
        column, row = (int(part) for part in where[0].floor().tolist())
        inside = 0 <= row < hw[0] and 0 <= column < hw[1] and float(distance[0]) > 0
        if inside and depth[row, column] == 0:
            ends = (room.wall_point(wall, u, -WALL_THICKNESS / 2) for u in (hole.u0, hole.u1))
            seen.append((next(ends), next(ends)))
    return seen


def facing_a_window(scene: Scene) -> Tensor | None:
    """A camera that faces the middle of a window from where one can walk up to it, or `None`."""
    for room, wall, hole in _windows(scene):
        for along in (0.5, 0.35, 0.65):
            u = hole.u0 + along * (hole.u1 - hole.u0)
            near = room.wall_point(wall, u, 0.4)
            for away in (2.5, 2.0, 1.5):
                far = room.wall_point(wall, u, away)
                if room.contains(*far) and not scene.collides(near, far, 0.2):
                    yaw = math.atan2(near[1] - far[1], near[0] - far[0])
                    return from_yaw_pitch((*far, 1.4), yaw).float()
    return None


def explore_table(result: dict[str, Any]) -> str:
    """Lay out the figures of `evaluate_explore`."""
    rows = [
        ("reward of a walk, m²", show(result["walk_reward"], 1)),
        ("reward of turns in place, m²", show(result["turn_reward"], 1)),
        ("walk over turns", show(result["walk_over_turn"], 2)),
        ("metres of a walk", show(result["walk_metres"], 1)),
        ("random steps, episodes that ended", f"{result['random_steps']}, {result['random_ends']}"),
        ("steps through a surface held", f"{result['surfaces_crossed']} of {result['steps_judged']}"),
        ("windows crossed, walks at windows", f"{result['windows_crossed']}, {result['walks_at_windows']}"),
        ("random steps outside the flat", f"{result['random_outside']:.1%}"),
        ("walked steps outside the flat", f"{result['walk_outside']:.1%}"),
    ]
    return format_table([(name, [text]) for name, text in rows], ["Explore-v1"])
