"""Writers and wrappers that nobody closes: episodes are kept as cut, files and locks are given free."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import SyncVectorEnv

from mirage_sim.errors import RecordingError, StateError
from mirage_sim.recording import HDF5Reader, HDF5Writer, RecordHDF5, RecordHDF5Vector, episode_file, repair
from tests.recording.samples import ENV_ARGS, check_episode, record

ROOT = Path(__file__).parents[2]
OBS = {"x": np.zeros(3)}

BEGINNINGS = {
    "single": 'env = RecordHDF5(gym.make("CartPole-v1"), path); env.reset(seed=0); env.step(0)',
    "vector": """
        vector = SyncVectorEnv([lambda: gym.make("CartPole-v1")] * 2)
        env = RecordHDF5Vector(vector, path); env.reset(seed=0); env.step(np.zeros(2, int))""",
    "writer": """
        env = HDF5Writer(path, env_args={"env_name": "toy"}); env.begin_episode(reset_options="{}")
        obs = {"x": np.zeros(2)}; env.append(obs, 0, 0.0, False, False, obs)""",
}
ENDINGS = {
    "the script ends": "",
    "the name is rebound": "env = None; assert HDF5Writer(path, env_args=args(), mode='a').episodes",
    "sys.exit": "sys.exit()",
    "a circle": "env.circle = env; del env; gc.collect()",
    "a circle at the end": "env.circle = env",
    "a thread is recording at the end": "threading.Thread(target=go_on, args=(env,), daemon=True).start()",
    "atexit goes on": "atexit.register(lambda: env)",
    "a module keeps it": "sys.modules['json'].kept = env",
}
SCRIPT = """
import atexit, gc, sys, tempfile, threading, weakref
# The first finalizer registers all of them with atexit: before h5py registers its own ending.
keep = tempfile.TemporaryDirectory(); weakref.finalize(keep, print, end="")
import gymnasium as gym, numpy as np
from gymnasium.vector import SyncVectorEnv
from mirage_sim.recording import HDF5Reader, HDF5Writer, RecordHDF5, RecordHDF5Vector
path = sys.argv[1]
def args():
    return HDF5Reader(path).env_args
def go_on(env):
    try:
        while True:
            env.reset(); env.step(env.action_space.sample())
    except Exception:
        pass
"""


def run(script: str, *arguments: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SCRIPT + textwrap.dedent(script), *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )


def check_cut(path: Path) -> None:
    episode = HDF5Reader(path)[0]
    assert episode.attrs["cut"]
    assert episode.attrs["reset_options"] == {}
    assert len(episode) == 1
    assert episode.truncated.tolist() == [True]
    assert repair(path).damaged == ()


@pytest.mark.parametrize(
    ("beginning", "ending"),
    [(beginning, "the script ends") for beginning in BEGINNINGS] + [("single", ending) for ending in ENDINGS],
)
def test_nothing_is_lost_and_nothing_is_said(tmp_path: Path, beginning: str, ending: str) -> None:
    script = textwrap.dedent(BEGINNINGS[beginning]) + "\n" + ENDINGS[ending]
    done = run(script, tmp_path / "a.h5")
    assert (done.returncode, done.stderr) == (0, "")
    check_cut(tmp_path / "a.h5")
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_an_error_in_the_users_code_is_all_that_is_said(tmp_path: Path) -> None:
    done = run(BEGINNINGS["single"] + "\nraise LookupError('mine')", tmp_path / "a.h5")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "LookupError: mine"
    assert "h5py" not in done.stderr
    check_cut(tmp_path / "a.h5")


def begin(path: Path) -> HDF5Writer:
    writer = HDF5Writer(path, env_args=ENV_ARGS, mode="a", fsync=False)
    writer.begin_episode()
    writer.append(OBS, 0, 0.0, False, False, OBS)
    return writer


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_notebook_can_open_the_file_again_at_once(tmp_path: Path) -> None:
    before = open_files()
    for number in range(3):
        env: Any = RecordHDF5(gym.make("CartPole-v1"), tmp_path / "a.h5", mode="a")
        env.reset(seed=number)
        env.step(0)
        del env
    for number in range(2):
        worlds = SyncVectorEnv([lambda: gym.make("CartPole-v1")])
        vector: Any = RecordHDF5Vector(worlds, tmp_path / "v.h5", mode="a")
        vector.reset(seed=number)
        vector.step(np.zeros(1, int))
        del vector
    for name, seeds in (("a.h5", [0, 1, 2]), ("v.h5", [0, 1])):
        reader = HDF5Reader(tmp_path / name)
        assert [episode.seed for episode in reader] == seeds
        assert all(episode.attrs["cut"] for episode in reader)
    assert open_files() == before


def test_a_writer_in_a_circle_does_not_keep_the_file(tmp_path: Path) -> None:
    gc.disable()
    try:
        writer: Any = begin(tmp_path / "a.h5")
        writer.circle = writer
        del writer
        with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS, mode="a") as writer:
            assert writer.episodes == ["demo_0"]
    finally:
        gc.enable()


def test_a_kept_traceback_keeps_the_file_until_it_goes(tmp_path: Path) -> None:
    def fail() -> None:
        writer = begin(tmp_path / "a.h5")
        writer.append(OBS, [np.nan], 0.0, False, False, OBS)

    try:
        fail()
    except ValueError as error:
        kept: Any = error
    with pytest.raises(RecordingError, match="in use"):
        HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS, mode="a")
    del kept
    begin(tmp_path / "a.h5").close()
    assert len(HDF5Reader(tmp_path / "a.h5")) == 2


def test_a_stream_that_outlives_its_writer_has_ended(tmp_path: Path) -> None:
    stream = HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS).open_episode()
    with pytest.raises(StateError, match="ended"):
        stream.append(OBS, 0, 0.0, False, False, OBS)


def test_objects_of_failed_calls_leave_nothing(tmp_path: Path) -> None:
    before = open_files()
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS) as writer:
        with pytest.raises(ValueError, match="note"):
            writer.begin_episode(note="a\0b")
        with pytest.raises(ValueError, match="cam2world"):
            writer.begin_episode(initial={"cam2world": np.eye(3)})
        record(writer, 0)
    with pytest.raises(RecordingError, match="env_args must name"):
        HDF5Writer(tmp_path / "a.h5", env_args={"env_name": "other"}, mode="a")
    gc.collect()
    assert open_files() == before


def test_garbage_collected_in_the_midst_of_hdf5(tmp_path: Path) -> None:
    threshold = gc.get_threshold()
    try:
        with HDF5Writer(tmp_path / "main.h5", env_args=ENV_ARGS, fsync=False) as writer:
            for number in range(6):
                dropped: Any = begin(tmp_path / f"{number}.h5")
                dropped.circle = dropped
                del dropped
                gc.set_threshold(1 + number)
                record(writer, number)
                gc.set_threshold(*threshold)
    finally:
        gc.set_threshold(*threshold)
    gc.collect()
    for number in range(6):
        check_episode(HDF5Reader(tmp_path / "main.h5")[number], number)
        assert len(HDF5Reader(tmp_path / f"{number}.h5")) == 1


def test_what_cannot_be_stored_then_is_a_warning(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    writer: Any = begin(folder / "a.h5")
    (folder / "a.h5").unlink()
    with pytest.warns(RuntimeWarning, match=r"a\.h5 was deleted while it was written"):
        del writer


FORK = """
env = RecordHDF5(gym.make("CartPole-v1"), path); env.reset(seed=0); env.step(0)
import os
child = os.fork()
if not child:
    {child}
os.waitpid(child, 0)
for _ in range(3):
    env.step(1)
{parent}
assert HDF5Reader(path).lengths == {{"demo_0": 4}}
HDF5Writer(path, env_args=args(), mode="a").close()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "child",
    [
        "sys.exit()",
        "del env; gc.collect(); os._exit(0)",
        "env.close(); os._exit(0)",
        """
    for use in (lambda: env.step(0), lambda: env.reset(), lambda: env.writer.begin_episode()):
        try:
            use()
        except RuntimeError as error:
            assert "process" in str(error), error
        else:
            print("no error", file=sys.stderr)
    sys.exit()""",
    ],
)
def test_a_forked_process_leaves_the_file_of_its_parent_alone(tmp_path: Path, child: str) -> None:
    done = run(FORK.format(child=child, parent="env.close()"), tmp_path / "a.h5")
    assert (done.returncode, done.stderr) == (0, "")
    assert repair(tmp_path / "a.h5").damaged == ()


def test_a_forked_process_that_lives_on_does_not_keep_the_lock(tmp_path: Path) -> None:
    script = """
    import os, time
    env = RecordHDF5(gym.make("CartPole-v1"), path); env.reset(seed=0); env.step(0)
    child = os.fork()
    if not child:
        time.sleep(60)
        os._exit(0)
    try:
        env.close()
        HDF5Writer(path, env_args=args(), mode="a").close()
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    """
    done = run(script, tmp_path / "a.h5")
    assert (done.returncode, done.stderr) == (0, "")


def test_a_dropped_writer_goes_with_its_last_reference(tmp_path: Path) -> None:
    writer = begin(tmp_path / "a.h5")
    gone = weakref.ref(writer)
    del writer
    assert gone() is None
    assert len(HDF5Reader(tmp_path / "a.h5")) == 1


INTERRUPTED = """
import signal
frames = np.random.default_rng(0).integers(0, 256, (4, 48, 48, 3), dtype=np.uint8)
writer = HDF5Writer(path, env_args={"env_name": "toy"}, fsync=False)
from mirage_sim.recording import tail_file
moments, count, write = int(sys.argv[2]), 0, tail_file.write_at
def counted(*arguments):
    # Ctrl-C at one chosen write of HDF5: handlers run at the next line of Python, in here.
    global count
    count += 1
    if count == moments:
        signal.raise_signal(signal.SIGINT)
    write(*arguments)
tail_file.write_at = counted
try:
    while True:
        writer.begin_episode()
        for i in range(3):
            obs = {"rgb": frames[i]} if i == 0 else None
            writer.append(obs, [0.0], 0.0, False, i == 2, {"rgb": frames[i + 1]}, {"coverage": 0.5})
        writer.end_episode()
except KeyboardInterrupt:
    writer.close()
    print(count)
"""


def test_an_interrupt_waits_until_hdf5_is_done(tmp_path: Path) -> None:
    for moment in (1, 5, 12, 20, 33):
        path = tmp_path / f"{moment}.h5"
        done = run(INTERRUPTED, path, moment)
        assert (done.returncode, done.stderr) == (0, ""), moment
        assert int(done.stdout) >= moment
        assert repair(path).damaged == ()
        assert all(len(episode) in (1, 2, 3) for episode in HDF5Reader(path))


@pytest.mark.parametrize("kind", [RuntimeError, KeyError, MemoryError])
def test_whatever_fails_while_storing_the_file_is_given_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    def fail(*arguments: Any) -> None:
        raise kind("HDF5 failed")

    before = open_files()
    monkeypatch.setattr(episode_file, "make_views", fail)
    writer: Any = begin(tmp_path / "a.h5")
    with pytest.raises(kind if kind is MemoryError else RecordingError, match="HDF5 failed"):
        writer.close()
    assert not writer.is_open
    assert open_files() == before
    writer = begin(tmp_path / "a.h5")
    with pytest.warns(RuntimeWarning, match="HDF5 failed"):
        del writer
    assert open_files() == before
    monkeypatch.undo()
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS, mode="a", fsync=False) as writer:
        record(writer, 0)
    check_episode(HDF5Reader(tmp_path / "a.h5")[0], 0)
