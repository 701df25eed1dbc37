"""Seeds: any integer from 0 on, checked before a world is touched, alike for one world and for many."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from mirage_sim.envs import ExploreEnv, ExploreVectorEnv
from mirage_sim.envs import core as core_module
from mirage_sim.errors import InputError, InputTypeError, MirageError
from tests.envs.conftest import same

LARGE = 2**63 + 5
WRONG = [
    (-1, InputError, "must be at least 0, got -1"),
    (True, InputTypeError, "must be an integer, got True"),
    (1.0, InputTypeError, "must be an integer, got 1.0"),
    ("1", InputTypeError, "must be an integer, got '1'"),
]


@pytest.mark.parametrize("seed", [LARGE, 2**64 - 1, 2**80, np.int64(7), np.uint64(LARGE)])
def test_large_seeds_and_numpy_integers(
    make_env: Callable[..., ExploreEnv], make_vector: Callable[..., ExploreVectorEnv], seed: Any
) -> None:
    single, many = make_env(), make_vector(2)
    first, info = single.reset(seed=seed)
    assert info["seed"] == int(seed)
    assert same(single.reset(seed=int(seed))[0], first)
    for given in ([3, seed], np.array([3, seed], dtype=object), (3, seed)):
        observations, infos = many.reset(seed=given)
        assert same({key: value[1] for key, value in observations.items()}, first)
        assert [int(one) for one in infos["seed"]] == [3, int(seed)]
    assert [int(one) for one in many.step(np.zeros((2, 5), np.float32))[4]["seed"]] == [3, int(seed)]
    _, infos = many.reset(seed=seed)
    assert [int(one) for one in infos["seed"]] == [int(seed), int(seed) + 1]
    assert many.np_random_seed == (int(seed), int(seed) + 1)


def test_small_seeds_stay_int64(make_vector: Callable[..., ExploreVectorEnv]) -> None:
    _, infos = make_vector(2).reset(seed=2**63 - 2)
    assert infos["seed"].dtype == np.int64


@pytest.mark.parametrize(("seed", "kind", "said"), WRONG)
def test_wrong_seeds_change_nothing(
    make_env: Callable[..., ExploreEnv],
    make_vector: Callable[..., ExploreVectorEnv],
    seed: Any,
    kind: type[MirageError],
    said: str,
) -> None:
    single, many = make_env(), make_vector(2)
    for env, seeds, zeros in (
        (single, [seed], np.zeros(5, np.float32)),
        (many, [seed, [4, seed], [seed, 4]], np.zeros((2, 5), np.float32)),
    ):
        env.reset(seed=1)
        twin = env.fork()
        for wrong in seeds:
            with pytest.raises(kind, match=said):
                env.reset(seed=wrong)
        assert same(env.step(zeros)[0], twin.step(zeros)[0])
        assert same(env.reset()[0], twin.reset()[0])


def test_the_place_of_a_wrong_seed_is_named(make_vector: Callable[..., ExploreVectorEnv]) -> None:
    with pytest.raises(InputError, match=r"seed\[1\] must be at least 0, got -3"):
        make_vector(2).reset(seed=[0, -3])
    with pytest.raises(InputError, match="seed must hold 2 numbers, got 3"):
        make_vector(2).reset(seed=[0, 1, 2])


@pytest.mark.parametrize("options", [{}, {"keep_world": True}])
def test_a_reset_that_breaks_off_leaves_the_worlds_as_they_were(
    make_vector: Callable[..., ExploreVectorEnv], monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    env = make_vector(2)
    env.reset(seed=1)
    zeros = np.zeros((2, 5), np.float32)
    env.step(zeros)
    twin = env.fork()

    def break_off(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(core_module.ExploreCore, "_show", break_off)
        with pytest.raises(KeyboardInterrupt):
            env.reset(seed=[5, 6], options=options)
    assert env.np_random_seed == (1, 2)
    after, expected = env.step(zeros), twin.step(zeros)
    assert same(after[0], expected[0])
    assert same(after[4]["memory_entries"], expected[4]["memory_entries"])
    states = [one.core.world.memory.state_dict() for one in (env, twin)]
    assert all(bool((states[0][name] == states[1][name]).all()) for name in states[0])
