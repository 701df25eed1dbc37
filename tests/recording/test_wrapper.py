"""Environments recorded through the wrappers."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import TimeLimit

from mirage_sim.errors import InputError, InputTypeError, RecordingError, StateError
from mirage_sim.recording import HDF5Reader, RecordHDF5, RecordHDF5Vector


class Walk(gym.Env[dict[str, Any], Any]):
    """Counts to `goal`, from a start that its seed draws; by default it reuses its arrays."""

    recording_metadata = {"model_id": "toy", "weights_sha256": "00"}  # noqa: RUF012

    def __init__(self, goal: int = 4, pose_in_obs: bool = True, reuse: bool = True) -> None:
        spaces = {"rgb": gym.spaces.Box(0, 255, (6, 6, 3), np.uint8)}
        if pose_in_obs:
            spaces["cam2world"] = gym.spaces.Box(-np.inf, np.inf, (4, 4), np.float32)
        self.observation_space = gym.spaces.Dict(spaces)
        self.action_space = gym.spaces.Box(-1, 1, (5,), np.float32)
        self.goal, self.pose_in_obs, self.reuse = goal, pose_in_obs, reuse
        self.obs = {"rgb": np.zeros((6, 6, 3), np.uint8), "cam2world": np.eye(4, dtype=np.float32)}

    def look(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self.obs["rgb"][:] = self.start + self.count
        self.obs["cam2world"][0, 3] = self.count
        info = {"coverage": self.count / 10, "intrinsics": np.eye(3, dtype=np.float32), "note": "text"}
        info["is_success"] = self.count == self.goal
        if self.pose_in_obs:
            obs = self.obs if self.reuse else {key: value.copy() for key, value in self.obs.items()}
            return obs, info
        return {"rgb": self.obs["rgb"]}, {**info, "cam2world": self.obs["cam2world"].copy()}

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        super().reset(seed=seed)
        self.start, self.count = int(self.np_random.integers(0, 100)), 0
        return self.look()

    def step(self, action: Any) -> Any:
        self.count += 1
        obs, info = self.look()
        return obs, float(action[0]), self.count == self.goal, False, info


def action(step: int) -> np.ndarray[Any, Any]:
    return np.full(5, step / 10, np.float32)


@pytest.mark.parametrize("pose_in_obs", [True, False])
def test_episodes_of_each_ending_are_recorded(tmp_path: Path, pose_in_obs: bool) -> None:
    path = tmp_path / "a.h5"
    env = RecordHDF5(TimeLimit(Walk(pose_in_obs=pose_in_obs), 6), path, metadata={"purpose": "test"})
    with pytest.raises(StateError, match="reset first"):
        env.step(action(0))
    seen = []
    for seed, steps in ((5, 4), (None, 2), (7, 1)):
        obs, _ = env.reset(seed=seed, options={"keep_world": seed is None})
        seen.append([obs["rgb"].copy()])
        for step in range(steps):
            seen[-1].append(env.step(action(step))[0]["rgb"].copy())
    env.close()
    env.close()

    reader = HDF5Reader(path)
    assert len(reader) == 3
    assert reader.attrs["model_id"] == "toy"
    assert reader.attrs["purpose"] == "test"
    assert reader.space("observation_space") == env.observation_space
    assert reader.space("action_space") == env.action_space
    for episode, frames in zip(reader, seen, strict=True):
        assert np.array_equal(episode.frames["rgb"], np.stack(frames))
        assert episode.cam2world is not None
        assert episode.cam2world.dtype == np.float32
        assert episode.cam2world[:, 0, 3].tolist() == list(range(len(frames)))
        assert np.array_equal(episode.intrinsics, np.eye(3))
        assert episode.extras["coverage"].tolist() == [step / 10 for step in range(1, len(frames))]
        assert ("cam2world" in episode.frames) is pose_in_obs
    whole, cut, closed = reader
    assert whole.terminated.tolist() == [False] * 3 + [True]
    assert not whole.truncated.any()
    assert (whole.seed, cut.seed, closed.seed) == (5, None, 7)
    assert (whole.attrs["success"], cut.attrs["success"]) == (True, False)
    assert cut.attrs["reset_options"] == {"keep_world": True}
    for episode in (cut, closed):
        assert episode.attrs["cut"]
        assert episode.truncated[-1]
        assert not episode.terminated.any()


def test_an_unseeded_reset_can_be_repeated(tmp_path: Path) -> None:
    env = RecordHDF5(Walk(), tmp_path / "a.h5")
    env.reset(seed=1)
    env.reset()
    env.step(action(0))
    env.close()
    episode = HDF5Reader(tmp_path / "a.h5")[0]
    again = Walk()
    again.np_random.bit_generator.state = json.loads(episode.attrs["np_random_state"])
    obs, _ = again.reset()
    assert np.array_equal(obs["rgb"], episode.frames["rgb"][0])


def test_registered_and_plain_environments(tmp_path: Path) -> None:
    env = RecordHDF5(gym.make("CartPole-v1", max_episode_steps=7), tmp_path / "a.h5")
    env.action_space.seed(0)
    env.reset(seed=3)
    for _ in range(3):
        env.step(env.action_space.sample())
    env.close()
    reader = HDF5Reader(tmp_path / "a.h5")
    assert reader.env_args["env_name"] == "CartPole-v1"
    assert json.loads(reader.attrs["env_spec"])["max_episode_steps"] == 7
    assert reader[0].frames["observation"].shape == (4, 4)
    assert reader[0].actions.shape == (3, 1)
    assert reader[0].actions.dtype == np.int64
    assert reader[0].cam2world is None


def test_a_recording_env_says_why_it_cannot_be_pickled_and_locks_its_file(tmp_path: Path) -> None:
    env = RecordHDF5(Walk(), tmp_path / "a.h5")
    with pytest.raises(InputTypeError, match="cannot be pickled"):
        pickle.dumps(env)
    with pytest.raises(RecordingError, match="in use"):
        RecordHDF5(Walk(), tmp_path / "a.h5", mode="a")
    env.close()


def test_recording_changes_nothing(tmp_path: Path) -> None:
    plain, recorded = Walk(), RecordHDF5(Walk(), tmp_path / "a.h5")
    for seed in (3, None, None):
        results = [env.reset(seed=seed)[0]["rgb"] for env in (plain, recorded)]
        assert np.array_equal(*results)
        steps = [env.step(action(1)) for env in (plain, recorded)]
        assert np.array_equal(steps[0][0]["rgb"], steps[1][0]["rgb"])
        assert steps[0][1:4] == steps[1][1:4]
    recorded.close()


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_vector_records_each_world_as_a_single_environment_would(
    tmp_path: Path, mode: AutoresetMode
) -> None:
    goals = (3, 5)
    makers = [lambda goal=goal: Walk(goal, reuse=False) for goal in goals]
    vector = RecordHDF5Vector(SyncVectorEnv(makers, autoreset_mode=mode), tmp_path / "v.h5")
    _, _ = vector.reset(seed=[10, 20])
    for step in range(14):
        _, _, terminated, _, _ = vector.step(np.stack([action(step)] * 2))
        if mode is AutoresetMode.DISABLED and terminated.any():
            vector.reset(options={"reset_mask": terminated})
    vector.close()

    reader = HDF5Reader(tmp_path / "v.h5")
    for index, goal in enumerate(goals):
        episodes = [episode for episode in reader if episode.attrs["env_index"] == index]
        single = Walk(goal)
        assert len(episodes) >= 3 - index
        for place, episode in enumerate(episodes):
            obs, _ = single.reset(seed=10 * (index + 1) if place == 0 else None)
            frames = [obs["rgb"].copy()]
            for row in episode.actions:
                frames.append(single.step(row)[0]["rgb"].copy())
            assert np.array_equal(episode.frames["rgb"], np.stack(frames))
            assert episode.extras["coverage"].tolist() == [n / 10 for n in range(1, len(episode) + 1)]
            assert np.array_equal(episode.intrinsics, np.eye(3))
            if not episode.attrs.get("cut"):
                assert len(episode) == goal
                assert episode.terminated[-1]
                assert episode.attrs["success"]
        assert episodes[0].seed == 10 * (index + 1)
        assert [bool(episode.attrs.get("cut")) for episode in episodes[:-1]] == [False] * (len(episodes) - 1)


class Broken(Walk):
    """Gives no number as the reward of its second step."""

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        return obs, float("nan") if self.count == 2 else reward, terminated, truncated, info


def test_nothing_is_recorded_behind_a_step_that_is_refused(tmp_path: Path) -> None:
    env = RecordHDF5(Broken(), tmp_path / "a.h5")
    for _ in range(2):
        env.reset(seed=1)
        env.step(action(0))
        with pytest.raises(InputError, match="reward must be finite"):
            env.step(action(1))
        for step in (2, 3):
            env.step(action(step))
        with pytest.raises(StateError, match="reset first"):
            env.step(action(4))
    env.close()
    for episode in HDF5Reader(tmp_path / "a.h5"):
        assert (len(episode), episode.attrs["cut"]) == (1, True)
        assert episode.cam2world is not None
        assert episode.cam2world[:, 0, 3].tolist() == [0, 1]
    assert len(HDF5Reader(tmp_path / "a.h5")) == 2


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_a_step_that_is_refused_leaves_the_other_worlds_alone(tmp_path: Path, mode: AutoresetMode) -> None:
    makers = [lambda: Broken(4, reuse=False), lambda: Walk(5, reuse=False)]
    vector = RecordHDF5Vector(SyncVectorEnv(makers, autoreset_mode=mode), tmp_path / "v.h5")
    vector.reset(seed=0)
    refused = []
    for step in range(5):
        try:
            _, _, terminated, _, _ = vector.step(np.stack([action(step)] * 2))
        except InputError:
            refused.append(step)
            continue
        if mode is AutoresetMode.DISABLED and terminated.any():
            vector.reset(options={"reset_mask": terminated})
    vector.close()
    assert refused[0] == 1
    whole = [e for e in HDF5Reader(tmp_path / "v.h5") if e.attrs["env_index"] == 1]
    broken = [e for e in HDF5Reader(tmp_path / "v.h5") if e.attrs["env_index"] == 0]
    assert len(whole[0]) == 5
    assert whole[0].terminated.tolist() == [False] * 4 + [True]
    assert len(broken[0]) == 1
    for episode in broken:
        assert episode.cam2world is not None
        assert episode.cam2world[:, 0, 3].tolist() == list(range(len(episode) + 1))
    # The world's next episode, where it has a step within these.
    assert len(broken) == 1 + (mode is not AutoresetMode.NEXT_STEP)


class Computed(Walk):
    """Says what it is computed on."""

    def __init__(self, threads: int) -> None:
        super().__init__()
        self.recording_metadata = {"model_id": "toy", "threads": str(threads)}


def test_appending_with_other_threads_claims_nothing_wrong(tmp_path: Path) -> None:
    for threads in (2, 4):
        env = RecordHDF5(Computed(threads), tmp_path / "a.h5", mode="a")
        env.reset(seed=0)
        env.step(action(0))
        env.close()
    reader = HDF5Reader(tmp_path / "a.h5")
    assert (reader.attrs["threads"], reader[1].attrs["circumstances"]) == ("2", {"threads": "4"})
    with pytest.raises(RecordingError, match=r"metadata\['threads'\]"):
        RecordHDF5(Computed(2), tmp_path / "a.h5", mode="a", metadata={"threads": "8"})
    with pytest.raises(RecordingError, match=r"metadata\['model_id'\]"):
        RecordHDF5(Computed(2), tmp_path / "a.h5", mode="a", metadata={"model_id": "other"})
