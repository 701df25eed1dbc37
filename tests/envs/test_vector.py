import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from mirage_sim.envs import ExploreEnv, ExploreVectorEnv
from mirage_sim.envs.config import OBSERVATIONS
from mirage_sim.errors import InputError, StateError
from mirage_sim.recording import HDF5Reader
from mirage_sim.recording.vector_wrapper import RecordHDF5Vector
from tests.envs.conftest import SIZE, same

Vector = Callable[..., ExploreVectorEnv]
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP]


def close(left: Any, right: Any) -> None:
    """A batched network rounds the last bit otherwise: pictures within a level, figures within 1e-4."""
    assert left.keys() == right.keys()
    for key in left:
        a, b = np.asarray(left[key]), np.asarray(right[key])
        assert a.dtype == b.dtype, key
        if key in ("final_obs", "final_info", "timings_ms"):
            continue
        np.testing.assert_allclose(
            a.astype(np.float64), b.astype(np.float64), atol=1 if a.dtype == np.uint8 else 1e-4, err_msg=key
        )


@pytest.mark.parametrize("mode", MODES)
def test_same_as_single_environments(
    make_env: Callable[..., ExploreEnv], make_vector: Vector, mode: AutoresetMode
) -> None:
    arguments = {"action_mode": "discrete", "observations": OBSERVATIONS}

    def limited() -> gym.Env[Any, Any]:
        return gym.wrappers.TimeLimit(make_env(**arguments), 4)

    ours = make_vector(3, max_episode_steps=4, autoreset_mode=mode, **arguments)
    theirs = SyncVectorEnv([limited] * 3, autoreset_mode=mode)
    assert ours.single_observation_space == theirs.single_observation_space
    assert ours.action_space == theirs.action_space
    assert ours.metadata["autoreset_mode"] is mode
    (obs, info), (other, told) = ours.reset(seed=20), theirs.reset(seed=20)
    close(obs, other)
    close(info, told)
    rng = np.random.default_rng(0)
    ends = 0
    for _ in range(7):
        actions = rng.choice([0, 1, 2, 3, 4, 5], 3, p=[0.3, 0.2, 0.2, 0.05, 0.05, 0.2])
        ours_step, their_step = ours.step(actions), theirs.step(actions)
        close(ours_step[0], their_step[0])
        np.testing.assert_allclose(ours_step[1], their_step[1], atol=1e-4)
        for a, b in zip(ours_step[2:4], their_step[2:4], strict=True):
            assert np.array_equal(a, b)
        close(ours_step[4], their_step[4])
        for index in np.flatnonzero(ours_step[4].get("_final_obs", np.zeros(3, bool))):
            close(ours_step[4]["final_obs"][index], their_step[4]["final_obs"][index])
        ends += int((ours_step[2] | ours_step[3]).sum())
    assert ends >= 3, "no episode ended"


def test_results_do_not_depend_on_batch_mates(make_vector: Vector) -> None:
    small, large = make_vector(1), make_vector(3)
    small.reset(seed=[5])
    large.reset(seed=[9, 5, 2])
    actions = np.random.default_rng(1).uniform(-1, 1, (4, 3, 5)).astype(np.float32)
    for action in actions:
        ours, theirs = small.step(action[1:2])[0], large.step(action)[0]
        close(
            {key: value[0] for key, value in ours.items()}, {key: value[1] for key, value in theirs.items()}
        )


def test_partial_reset_leaves_the_others_alone(make_vector: Vector) -> None:
    env = make_vector(3, action_mode="discrete", autoreset_mode="Disabled")
    env.reset(seed=1)
    obs, *_ = env.step(np.array([1, 1, 1]))
    mask = np.array([False, True, False])
    options = {"reset_mask": mask}
    fresh, info = env.reset(seed=[None, 40, None], options=options)
    assert options == {"reset_mask": mask}, "the caller's options were changed"
    for row in (0, 2):
        assert same(fresh["rgb"][row], obs["rgb"][row])
    assert info["_seed"].tolist() == [False, True, False]
    alone = make_vector(1, action_mode="discrete")
    assert same(alone.reset(seed=40)[0]["rgb"][0], fresh["rgb"][1])
    assert env.np_random_seed == (1, 40, 3)


def test_disabled_autoreset_asks_for_a_reset(make_vector: Vector) -> None:
    env = make_vector(2, action_mode="discrete", autoreset_mode="Disabled")
    env.reset(seed=0)
    _, _, ends, _, _ = env.step(np.array([5, 0]))
    assert ends.tolist() == [True, False]
    with pytest.raises(StateError, match=r"ended ones in \[0\]"):
        env.step(np.array([0, 0]))
    env.reset(options={"reset_mask": ends, "keep_world": True})
    env.step(np.array([0, 0]))


def test_step_before_reset_and_bad_actions(make_vector: Vector) -> None:
    env = make_vector(2)
    with pytest.raises(StateError, match="reset"):
        env.step(np.zeros((2, 5), np.float32))
    env.reset(seed=0, options={"reset_mask": np.array([True, False])})
    with pytest.raises(StateError, match=r"\[1\]"):
        env.step(np.zeros((2, 5), np.float32))
    with pytest.raises(InputError, match="actions must be"):
        env.step(np.zeros(5, np.float32))


def test_save_load_fork_and_pickle(make_vector: Vector, tmp_path: Path) -> None:
    env = make_vector(2)
    env.reset(seed=0)
    env.action_space.seed(0)
    for _ in range(2):
        env.step(env.action_space.sample())
    copies = [env.fork(), pickle.loads(pickle.dumps(env))]  # noqa: S301 (its own)
    env.save_world(tmp_path / "place", world=1)
    action = env.action_space.sample()
    expected = env.step(action)[0]
    for other in copies:
        assert same(other.step(action)[0], expected)
    twins = make_vector(2)
    twins.reset(options={"world": tmp_path / "place"})
    after = twins.step(np.stack([action[1], action[1]]))[0]
    assert same(after["rgb"][0], after["rgb"][1])
    close({"rgb": after["rgb"][0]}, {"rgb": expected["rgb"][1]})
    tripled = env.fork([0, 0, 1])
    assert tripled.num_envs == 3
    with pytest.raises(InputError, match="world must be in"):
        env.load_world(tmp_path / "place", world=2)
    opened, _ = env.load_world(tmp_path / "place", world=0)
    assert same(opened["rgb"][1], expected["rgb"][1])


def test_make_vec_render_and_shared_model(model_folder: Path, painted: None) -> None:
    env = gym.make_vec(
        "Mirage/Explore-v0",
        num_envs=2,
        vectorization_mode="vector_entry_point",
        world_model=str(model_folder),
        render_mode="rgb_array",
        max_episode_steps=3,
    )
    obs, _ = env.reset(seed=0)
    assert obs in env.observation_space
    frames = env.render()
    assert len(frames) == 2
    assert frames[1].shape == (SIZE, SIZE, 3)
    assert np.array_equal(frames[1], obs["rgb"][1])
    assert env.unwrapped.max_episode_steps == 3
    assert env.unwrapped.core.model is ExploreEnv(world_model=str(model_folder)).core.model
    env.close()


@pytest.mark.parametrize("mode", MODES)
def test_under_the_recorder(make_vector: Vector, tmp_path: Path, mode: AutoresetMode) -> None:
    env = RecordHDF5Vector(make_vector(2, max_episode_steps=2, autoreset_mode=mode), tmp_path / "walk.hdf5")
    env.reset(seed=0)
    for _ in range(3):
        env.step(env.action_space.sample())
    env.close()
    reader = HDF5Reader(tmp_path / "walk.hdf5")
    assert len(reader) >= 2
    assert len(reader[0].rewards) == 2
