"""Threads: how many are used, put back, and what happens in processes that were forked or spawned."""

from __future__ import annotations

import logging
import multiprocessing
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.vector import AsyncVectorEnv

from mirage_sim import threads
from mirage_sim.envs import ExploreEnv
from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.torch_state import own_torch_state
from mirage_sim.world import crowding
from tests.envs.conftest import SIZE
from tests.models import save_tiny_world_model

IMAGE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_world_model(tmp_path_factory.mktemp("model"), height=SIZE, width=SIZE)


@pytest.mark.parametrize(
    ("files", "group", "cores"),
    [
        ({}, "", float("inf")),
        ({"cpu.max": "max 100000"}, "", float("inf")),
        ({"cpu.max": "150000 100000"}, "", 1.5),
        ({"a/b/cpu.max": "400000 100000", "a/cpu.max": "200000 100000"}, "a/b", 2.0),
        ({"a/b/cpu.max": "50000 100000", "a/cpu.max": "200000 100000"}, "a/b", 0.5),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, "", 3.0),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, "", float("inf")),
        ({"cpu.max": "nonsense"}, "", float("inf")),
    ],
)
def test_the_quota_is_the_smallest_on_the_way_up(
    files: dict[str, str], group: str, cores: float, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text + "\n")
    assert threads._quota(tmp_path, group) == cores


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity is Linux's")
def test_the_default_follows_affinity_and_torch() -> None:
    script = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})\n"
        "from mirage_sim.threads import threads_to_use, usable_cores\n"
        "print(usable_cores(), threads_to_use(None, 8), threads_to_use(3, 8))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["1", "1", "3"]
    assert threads.threads_to_use(None, 1) == 1


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (0, InputError, "threads must be at least 1, got 0"),
        (True, InputTypeError, "threads must be None or an integer, got True"),
        (1.5, InputTypeError, "threads must be None or an integer, got 1.5"),
        ("2", InputTypeError, "threads must be None or an integer, got '2'"),
    ],
)
def test_wrong_numbers_of_threads_are_refused(
    given: object, error: type[Exception], message: str, folder: Path
) -> None:
    with pytest.raises(error, match=message):
        ExploreEnv(world_model=folder, threads=given)  # type: ignore[arg-type]


def test_threads_are_in_force_during_calls_only(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    env = ExploreEnv(world_model=folder, threads=3)
    decode = type(env.core.model.codec).decode

    def watched(*arguments: torch.Tensor) -> torch.Tensor:
        seen.append(torch.get_num_threads())
        return decode(*arguments)

    monkeypatch.setattr(type(env.core.model.codec), "decode", watched)
    env.reset(seed=0, options={"image": IMAGE})
    env.step(np.zeros(5, np.float32))
    env.fork().step(np.zeros(5, np.float32))
    assert set(seen) == {3}
    assert torch.get_num_threads() == 1


def test_a_worker_uses_one_thread_by_default() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(threads.threads_to_use, (None, 8)) == 1
        assert pool.apply(threads.threads_to_use, (2, 8)) == 2


def make_env(folder: Path, count: int | None) -> gym.Env:
    return ExploreEnv(world_model=folder, threads=count)


def parallel() -> None:
    """Start OpenMP's threads in this process, which a forked one waits for in vain."""
    with own_torch_state(threads=2):
        torch.nn.functional.conv2d(torch.ones(8, 32, 64, 64), torch.ones(32, 32, 3, 3))


@pytest.mark.slow
@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_worker_processes_walk_like_this_one(context: str, folder: Path) -> None:
    parallel()
    single = make_env(folder, None)
    expected, _ = single.reset(seed=5, options={"image": IMAGE})
    workers = AsyncVectorEnv([partial(make_env, folder, None)] * 2, context=context)
    try:
        workers.reset_async(seed=5, options={"image": IMAGE})
        observations, _ = workers.reset_wait(timeout=120)
        np.testing.assert_array_equal(observations["rgb"][0], expected["rgb"])
        workers.step_async(workers.action_space.sample())
        workers.step_wait(timeout=120)
    finally:
        workers.close(terminate=True)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_more_threads_than_one_are_refused_after_a_fork(folder: Path) -> None:
    env = make_env(folder, 2)
    env.reset(seed=0, options={"image": IMAGE})
    context = multiprocessing.get_context("fork")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=step_and_tell, args=(env, sender))
    child.start()
    assert receiver.poll(60)
    message = receiver.recv()
    child.join(60)
    assert "threads must be 1 in a process that was forked after torch was loaded, got 2" in message
    assert 'context="spawn"' in message


def step_and_tell(env: gym.Env, sender: multiprocessing.connection.Connection) -> None:
    try:
        env.step(np.zeros(5, np.float32))
        sender.send("no error")
    except RuntimeError as error:
        sender.send(str(error))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
def test_a_fork_is_noticed_where_the_package_is_first_imported_in_the_child() -> None:
    script = (
        "import multiprocessing, torch\n"
        "def look():\n"
        "    from mirage_sim.threads import threads_to_use\n"
        "    try:\n"
        "        return threads_to_use(2, 2)\n"
        "    except RuntimeError as error:\n"
        "        return str(error)\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    print(pool.apply(look))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert 'context="spawn"' in done.stdout


@pytest.mark.parametrize(
    ("before", "after"),
    [({}, "None 0"), ({"GOMP_SPINCOUNT": "7"}, "7 7"), ({"OMP_WAIT_POLICY": "active"}, "None None")],
)
def test_workers_wait_passively_unless_the_user_chose(before: dict[str, str], after: str) -> None:
    script = (
        "import multiprocessing, os\n"
        "def look():\n"
        "    import mirage_sim.envs\n"
        "    return os.environ.get('GOMP_SPINCOUNT')\n"
        "if __name__ == '__main__':\n"
        "    with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "        inside = pool.apply(look)\n"
        "    print(look(), inside)"
    )
    environment = {name: value for name, value in os.environ.items() if name not in threads.WAIT_VARIABLES}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment | before, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == after


def test_crowded_steps_are_warned_of_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crowding, "_crowded_steps", 0)
    monkeypatch.setattr(crowding, "SWITCHES_PER_SECOND", -1.0)  # every step is crowded
    with caplog.at_level(logging.WARNING), own_torch_state(threads=2):
        for _ in range(3 * crowding.STEPS):
            with crowding.watch_crowding():
                pass
    (record,) = caplog.records
    assert "GOMP_SPINCOUNT=0" in record.getMessage()
    assert "threads=1" in record.getMessage()


def test_one_thread_is_never_crowded(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(crowding, "_crowded_steps", 0)
    monkeypatch.setattr(crowding, "SWITCHES_PER_SECOND", -1.0)
    with caplog.at_level(logging.WARNING), own_torch_state(threads=1):
        for _ in range(3 * crowding.STEPS):
            with crowding.watch_crowding():
                pass
    assert not caplog.records
