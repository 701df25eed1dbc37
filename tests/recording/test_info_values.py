"""Entries of `info` that come and go, or change their shape or dtype: no step is lost, and all is kept."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from mirage_sim.errors import InputError
from mirage_sim.recording import Episode, HDF5Reader, HDF5Writer, RecordHDF5, RecordHDF5Vector, repair
from mirage_sim.recording.columns import Column
from tests.recording.samples import ENV_ARGS


class Teller(gym.Env[Any, Any]):
    """Says in `info`, under `value`, what it was given for each step; None is nothing."""

    def __init__(self, values: list[Any], camera: list[Any] | None = None) -> None:
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
        self.action_space = gym.spaces.Discrete(2)
        self.values, self.camera = values, camera or [None] * (len(values) + 1)

    def look(self, info: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        camera = self.camera[self.count]
        return np.full(2, self.count, np.float32), {
            **info,
            **({} if camera is None else {"cam2world": camera}),
        }

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.count = 0
        return self.look({})

    def step(self, action: Any) -> Any:
        value = self.values[self.count]
        self.count += 1
        obs, info = self.look({} if value is None else {"value": value})
        return obs, 0.0, self.count == len(self.values), False, info


def rollout(path: Path, env: gym.Env[Any, Any], keys: Any = ("value",)) -> Episode:
    recorder = RecordHDF5(env, path, info_keys=keys)
    recorder.reset()
    ended = False
    while not ended:
        ended = recorder.step(0)[2]
    recorder.close()
    assert repair(path).damaged == ()
    return HDF5Reader(path)[0]


NAN = float("nan")
CASES: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
    "at the last step only": ([None, None, 0.5], [NAN, NAN, 0.5], [0, 0, 1]),
    "not at the last step": ([1.0, 2.0, None], [1.0, 2.0, NAN], [1, 1, 0]),
    "now and then": ([None, 3, None, 4], [0, 3, 0, 4], [0, 1, 0, 1]),
    "a flag": ([None, True], [False, True], [0, 1]),
    "integers, then floats": ([1, 2, 0.5], [1.0, 2.0, 0.5], [1, 1, 1]),
    "a flag, then a number": ([True, 7], [1, 7], [1, 1]),
    "a longer list": (
        [np.ones(1), np.full(3, 2.0), np.full(2, 3.0)],
        [[1, NAN, NAN], [2, 2, 2], [3, 3, NAN]],
        [[1, 0, 0], [1, 1, 1], [1, 1, 0]],
    ),
    "a number, then a list": ([5, [6, 7]], [[5, 0], [6, 7]], [[1, 0], [1, 1]]),
    "a list, then a number": ([[6, 7], 5], [[6, 7], [5, 0]], [[1, 1], [1, 0]]),
    "wider one way, longer the other": (
        [np.ones((1, 2), int), np.ones((2, 1), int)],
        [[[1, 1], [0, 0]], [[1, 0], [1, 0]]],
        [[[1, 1], [0, 0]], [[1, 0], [1, 0]]],
    ),
    "nothing detected yet": (
        [np.zeros((0, 2)), np.ones((1, 2))],
        [[[NAN, NAN]], [[1, 1]]],
        [[[0, 0]], [[1, 1]]],
    ),
}


@pytest.mark.parametrize("case", list(CASES))
def test_what_comes_is_stored_and_the_rest_is_marked(tmp_path: Path, case: str) -> None:
    values, expected, came = CASES[case]
    episode = rollout(tmp_path / "a.h5", Teller(values))
    assert len(episode) == len(values)
    assert np.array_equal(
        episode.extras["value"], expected, equal_nan=episode.extras["value"].dtype.kind == "f"
    )
    assert np.array_equal(episode.came("value"), np.array(came, bool))
    assert list(episode.extras) == ["value"]


def test_an_entry_that_always_comes_has_no_mask(tmp_path: Path) -> None:
    episode = rollout(tmp_path / "a.h5", Teller([1.0, 2.0]))
    assert episode.masks == {}
    assert episode.came("value").all()
    assert "value" not in rollout(tmp_path / "b.h5", Teller([None, None])).extras
    with pytest.raises(InputError, match="key must be one of"):
        episode.came("depth")


def test_what_is_not_numeric_is_left_out_with_one_warning(tmp_path: Path) -> None:
    with pytest.warns(RuntimeWarning, match="'value'") as warned:
        episode = rollout(tmp_path / "a.h5", Teller([1.0, "won", {"a": 1}, [[1], [2, 3]], 2.0]))
    assert len(warned) == 1
    assert len(episode) == 5
    assert episode.came("value").tolist() == [True, False, False, False, True]


@pytest.mark.parametrize("keys", [("rewards",), ("a/b",), ("a", "_a"), ("a\0b",), "value", ("",)])
def test_keys_that_cannot_be_stored_are_refused_before_anything_is_made(tmp_path: Path, keys: Any) -> None:
    with pytest.raises(InputError, match=r"extras must|info_keys must"):
        RecordHDF5(Teller([1.0]), tmp_path / "a.h5", info_keys=keys)
    with pytest.raises(InputError, match=r"extras must|info_keys must"):
        RecordHDF5Vector(SyncVectorEnv([lambda: Teller([1.0])]), tmp_path / "a.h5", info_keys=keys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", [[1, 1, 0], [0, 1, 1], [1, 0, 1]])
def test_a_pose_that_comes_and_goes_does_not_end_the_rollout(tmp_path: Path, known: list[int]) -> None:
    camera = [np.eye(4, dtype=np.float32) if each else None for each in known]
    episode = rollout(tmp_path / "a.h5", Teller([1.0, 2.0], camera), keys=("value", "cam2world"))
    assert len(episode) == 2
    if not known[0]:
        assert episode.cam2world is None
        return
    assert episode.cam2world is not None
    assert np.isfinite(episode.cam2world).all(axis=(1, 2)).tolist() == [bool(each) for each in known]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_worlds_of_a_vector_have_their_own(tmp_path: Path, mode: AutoresetMode) -> None:
    values = ([None, None, 0.5], [1.0, None, None, 4.0])
    worlds = SyncVectorEnv([lambda part=part: Teller(part) for part in values], autoreset_mode=mode)
    vector = RecordHDF5Vector(worlds, tmp_path / "v.h5", info_keys=("value",))
    vector.reset(seed=0)
    for _ in range(9):
        _, _, terminated, _, _ = vector.step(np.zeros(2, int))
        if mode is AutoresetMode.DISABLED and terminated.any():
            vector.reset(options={"reset_mask": terminated})
    vector.close()
    assert repair(tmp_path / "v.h5").damaged == ()
    ended = [episode for episode in HDF5Reader(tmp_path / "v.h5") if not episode.attrs.get("cut")]
    for index, part in enumerate(values):
        episodes = [episode for episode in ended if episode.attrs["env_index"] == index]
        assert episodes
        for episode in episodes:
            assert episode.came("value").tolist() == [value is not None for value in part]
            assert episode.extras["value"][episode.came("value")].tolist() == [
                v for v in part if v is not None
            ]


def test_long_episodes_widen_without_a_loss(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sizes = rng.integers(1, 5, 3000)
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS) as writer:
        writer.begin_episode()
        for step, size in enumerate(sizes):
            obs = {"x": np.zeros(1)} if step == 0 else None
            extras = {"ids": np.full(size, step)} if step % 7 else {}
            writer.append(obs, 0, 0.0, False, False, {"x": np.zeros(1)}, extras)
        writer.end_episode()
    episode = HDF5Reader(tmp_path / "a.h5")[0]
    for step, size in enumerate(sizes):
        row = episode.extras["ids"][step][episode.came("ids")[step]]
        assert row.tolist() == ([step] * size if step % 7 else [])


@pytest.mark.parametrize("packing", ["gzip", None])
def test_a_value_that_grows_with_each_step_is_rewritten_seldom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, packing: Any
) -> None:
    rows: list[int] = []
    widened = Column.widened

    def counted(column: Column, *arguments: Any) -> Any:
        rows.append(len(column.dataset))
        return widened(column, *arguments)

    monkeypatch.setattr(Column, "widened", counted)
    steps = 128
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS, compression=packing, fsync=False) as writer:
        writer.begin_episode()
        for step in range(steps):
            obs = {"x": np.zeros(1)} if step == 0 else None
            extras = {"path": np.full((3 * (step + 1), 2), step)}
            writer.append(obs, 0, 0.0, False, False, {"x": np.zeros(1)}, extras)
        writer.end_episode()
    # Values and mask, each as often as the length doubles.
    assert len(rows) <= 2 * 8
    episode = HDF5Reader(tmp_path / "a.h5")[0]
    assert episode.extras["path"].shape == episode.came("path").shape == (steps, 3 * steps, 2)
    for step in range(steps):
        came = episode.came("path")[step]
        assert came[: 3 * (step + 1)].all()
        assert not came[3 * (step + 1) :].any()
        assert np.array_equal(episode.extras["path"][step], np.where(came, step, 0))


@pytest.mark.parametrize("values", [[2**53 + 1, 0.5], [0.5, -(2**53) - 1, 2**60], [np.uint64(2**63), 1]])
def test_integers_that_a_later_dtype_rounds_are_named_once(tmp_path: Path, values: list[Any]) -> None:
    with pytest.warns(RuntimeWarning, match="value holds integers beyond 2") as warned:
        episode = rollout(tmp_path / "a.h5", Teller(values))
    assert len(warned) == 1
    assert episode.extras["value"].dtype == np.float64
    assert len(episode) == len(values)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rollout(tmp_path / "b.h5", Teller([2**53, 0.5, np.uint8(3)]))
        with pytest.raises(RuntimeWarning, match="beyond"):
            rollout(tmp_path / "c.h5", Teller(values))
    assert repair(tmp_path / "c.h5").damaged == ()
