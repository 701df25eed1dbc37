"""Version 1 of Explore, and what holds for every registered id."""

import copy
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import SyncVectorEnv

from mirage_sim.agents import make_agent
from mirage_sim.envs import ExploreEnv, ExploreEnvV1, ExploreVectorEnvV1
from mirage_sim.envs.config import OBSERVATIONS
from mirage_sim.envs.reward import RewardConfig
from mirage_sim.errors import InputError, InputTypeError, StateError
from mirage_sim.memory.store import load_state
from mirage_sim.model.world_model import WorldModel
from tests.envs.conftest import SIZE, same

IDS = sorted(name for name in gym.registry if name.startswith("Mirage/"))
COST = RewardConfig().step_cost
FORWARD, LEFT, RIGHT = 0, 1, 2


@pytest.fixture
def make(model: WorldModel, painted: None) -> Callable[..., ExploreEnvV1]:
    def build(**arguments: Any) -> ExploreEnvV1:
        return ExploreEnvV1(**{"world_model": model, "action_mode": "discrete", **arguments})

    return build


@pytest.fixture
def make_many(model: WorldModel, painted: None) -> Callable[..., ExploreVectorEnvV1]:
    def build(num_envs: int, **arguments: Any) -> ExploreVectorEnvV1:
        return ExploreVectorEnvV1(num_envs, **{"world_model": model, "action_mode": "discrete", **arguments})

    return build


def steps(env: Any, actions: list[int]) -> list[tuple[Any, ...]]:
    return [env.step(action) for action in actions]


def alike(left: list[tuple[Any, ...]], right: list[tuple[Any, ...]]) -> bool:
    pairs = zip(left, right, strict=True)
    return all(same(dict(enumerate(a)), dict(enumerate(b))) for a, b in pairs)


def test_both_versions_are_registered() -> None:
    assert IDS == ["Mirage/Explore-v0", "Mirage/Explore-v1"]
    assert all(gym.spec(name).max_episode_steps == 1000 for name in IDS)


@pytest.mark.parametrize("name", IDS)
@pytest.mark.parametrize("action_mode", ["relative", "pose", "discrete"])
@pytest.mark.filterwarnings("ignore:.*Box observation space.*")
def test_every_id_passes_the_checker(model_folder: Path, painted: None, name: str, action_mode: str) -> None:
    chosen = {"action_mode": action_mode, "observations": OBSERVATIONS}
    check_env(gym.make(name, world_model=str(model_folder), **chosen).unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_every_id_repeats_itself_and_pickles(model_folder: Path, painted: None, name: str) -> None:
    runs = []
    for _ in range(2):
        env = gym.make(name, world_model=str(model_folder), action_mode="discrete").unwrapped
        first = env.reset(seed=9)
        runs.append([first, *steps(env, [LEFT, FORWARD, FORWARD])])
    assert alike(*runs)
    others = [pickle.loads(pickle.dumps(env)), copy.deepcopy(env), env.fork()]  # noqa: S301 (its own)
    expected = steps(env, [LEFT, LEFT, FORWARD])
    for other in others:
        assert type(other) is type(env)
        assert alike(steps(other, [LEFT, LEFT, FORWARD]), expected)


@pytest.mark.parametrize("name", IDS)
def test_every_id_as_a_vector(model_folder: Path, painted: None, name: str) -> None:
    arguments = {"world_model": str(model_folder), "action_mode": "discrete", "observations": ("depth",)}
    ours = gym.make_vec(name, 2, vectorization_mode="vector_entry_point", **arguments)
    theirs = SyncVectorEnv([lambda: gym.make(name, **arguments)] * 2)
    assert ours.single_action_space == theirs.single_action_space
    np.testing.assert_allclose(ours.reset(seed=3)[0]["depth"], theirs.reset(seed=3)[0]["depth"], atol=1e-4)
    for actions in ([LEFT, FORWARD], [LEFT, RIGHT], [FORWARD, FORWARD]):
        mine, other = ours.step(np.array(actions)), theirs.step(np.array(actions))
        np.testing.assert_allclose(mine[0]["depth"], other[0]["depth"], atol=1e-4)
        np.testing.assert_allclose(mine[1], other[1], atol=0.02)  # rounding may move a sample to a neighbour
        assert mine[4]["collision"].tolist() == other[4]["collision"].tolist()
    copied = pickle.loads(pickle.dumps(ours.unwrapped))  # noqa: S301 (its own)
    after, again = ours.step(np.array([LEFT, LEFT])), copied.step(np.array([LEFT, LEFT]))
    assert same(after[0], again[0])
    assert np.array_equal(after[1], again[1])


def test_version_0_is_as_it_was(model: WorldModel) -> None:
    env = ExploreEnv(world_model=model, action_mode="discrete")
    assert env.action_space.n == 6
    assert (env.config.collide, env.config.version) == (False, 0)
    with pytest.raises(InputError, match="collide must be False where memory is False"):
        ExploreEnv(world_model=model, memory=False, collide=True)


def test_stop_is_an_option(make: Callable[..., ExploreEnvV1]) -> None:
    env = make()
    assert env.action_space == gym.spaces.Discrete(5)
    env.reset(seed=0)
    with pytest.raises(InputError, match=r"action must be in 0\.\.4, got 5"):
        env.step(5)
    stopping = make(stop_action=True)
    assert stopping.action_space == gym.spaces.Discrete(6)
    stopping.reset(seed=0)
    assert stopping.step(5)[2]
    with pytest.raises(InputTypeError, match="stop_action must be True or False, got 1"):
        make(stop_action=1)
    with pytest.raises(TypeError, match="stop"):
        make(stop=True)


@pytest.mark.slow
def test_random_episodes_last(make: Callable[..., ExploreEnvV1]) -> None:
    env = make(observations=("coverage",))
    env.reset(seed=0)
    env.action_space.seed(0)
    assert not any(any(env.step(env.action_space.sample())[2:4]) for _ in range(200))


@pytest.mark.parametrize("name", IDS)
def test_an_episode_that_ended_asks_for_a_reset(model_folder: Path, painted: None, name: str) -> None:
    more = {} if name.endswith("v0") else {"stop_action": True}
    env = gym.make(name, world_model=str(model_folder), action_mode="discrete", **more)
    env.reset(seed=0)
    env.step(5)
    for ended in (env, env.unwrapped.fork(), pickle.loads(pickle.dumps(env.unwrapped))):  # noqa: S301
        with pytest.raises(StateError, match="one that has ended: call reset first"):
            ended.step(FORWARD)
    env.reset(options={"keep_world": True})
    env.step(FORWARD)


def test_what_was_paid_is_not_paid_again(make: Callable[..., ExploreEnvV1]) -> None:
    env = make()
    env.reset(seed=3)
    first = [step[1] for step in steps(env, [FORWARD, FORWARD])]
    assert min(first) > 0.1
    env.reset(options={"keep_world": True})
    assert [step[1] for step in steps(env, [FORWARD, FORWARD])] == pytest.approx([-COST, -COST], abs=0.02)
    env.reset(seed=3)
    assert [step[1] for step in steps(env, [FORWARD, FORWARD])] == first


def test_the_account_is_saved_forked_and_pickled(make: Callable[..., ExploreEnvV1], tmp_path: Path) -> None:
    env = make()
    env.reset(seed=3)
    steps(env, [FORWARD, LEFT])
    env.save_world(tmp_path / "place")
    opened = make()
    opened.reset(options={"world": tmp_path / "place"})
    for other in (env.fork(), opened):
        assert torch.equal(other.core.episodes.paid[0], env.core.episodes.paid[0])
    expected = [step[1] for step in steps(env, [RIGHT, FORWARD])]
    assert [step[1] for step in steps(opened, [RIGHT, FORWARD])] == expected


def test_worlds_go_from_version_to_version(
    make: Callable[..., ExploreEnvV1], make_env: Callable[..., ExploreEnv], tmp_path: Path
) -> None:
    old, new = make_env(action_mode="discrete"), make()
    old.reset(seed=3)
    last = old.step(FORWARD)[0]
    old.save_world(tmp_path / "old")
    assert "extra.paid" not in load_state(tmp_path / "old", "world")[0]
    opened, _ = new.reset(options={"world": tmp_path / "old"})
    assert same(opened, last)
    assert len(new.core.episodes.paid[0]) > 0, "what a world shows when it is opened counts as seen"
    assert new.step(FORWARD)[1] > 0
    new.save_world(tmp_path / "new")
    back, _ = make_env(action_mode="discrete").reset(options={"world": tmp_path / "new"})
    assert back["rgb"].any()


def test_without_memory_nothing_collides(make: Callable[..., ExploreEnvV1]) -> None:
    env = make(memory=False)
    env.reset(seed=2)
    assert len(env.core.episodes.paid[0]) > 0
    after = steps(env, [FORWARD] * 10)
    assert np.linalg.norm(after[-1][0]["cam2world"][:2, 3]) == pytest.approx(2.5, abs=1e-3)
    assert not any(step[4]["collision"] for step in after)
    assert "collide" not in after[0][4]["timings_ms"]


def test_walls_stop_the_agent(make: Callable[..., ExploreEnvV1]) -> None:
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    options = {"image": image, "depth": np.full((SIZE, SIZE), 2.0, np.float32)}
    env = make(observations=("cam2world",))
    env.reset(seed=0, options=options)
    solid = steps(env, [FORWARD] * 10)
    assert solid[-1][4]["collision"]
    assert 1.5 < solid[-1][0]["cam2world"][0, 3] < 1.9
    *_, info = env.step(LEFT)
    assert not info["collision"]
    ghost = make(observations=("cam2world",), collide=False)
    ghost.reset(seed=0, options=options)
    assert steps(ghost, [FORWARD] * 10)[-1][0]["cam2world"][0, 3] == pytest.approx(2.5, abs=1e-3)


def test_partial_resets_keep_other_accounts(make_many: Callable[..., ExploreVectorEnvV1]) -> None:
    env = make_many(2)
    env.reset(seed=0)
    env.step(np.array([LEFT, LEFT]))
    before = [paid.clone() for paid in env.core.episodes.paid]
    env.reset(seed=[None, 7], options={"reset_mask": np.array([False, True])})
    assert torch.equal(env.core.episodes.paid[0], before[0])
    assert not torch.equal(env.core.episodes.paid[1], before[1])


def test_agents_walk_with_five_actions(make: Callable[..., ExploreEnvV1]) -> None:
    env = make()
    agent = make_agent("frontier", env)
    observation, info = env.reset(seed=1)
    agent.reset(observation, info)
    for _ in range(3):
        observation, _, _, _, info = env.step(agent.act(observation, info))
