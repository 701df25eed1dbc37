"""Typed reading: order, slices, pickling, and files that are none."""

from __future__ import annotations

import contextlib
import pickle
import subprocess
import sys
import threading
from pathlib import Path

import gymnasium as gym
import h5py
import numpy as np
import pytest

from mirage_sim.errors import FileFormatError, InputError, InputTypeError, MirageError
from mirage_sim.recording import HDF5Reader, HDF5Writer, repair
from mirage_sim.recording.schema import natural_key, space_from_dict, space_to_dict, to_json
from tests.recording.samples import ENV_ARGS, check_episode, observation, write_file


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_file(tmp_path_factory.mktemp("reader") / "a.h5", 12, metadata={"weights_sha256": "ab" * 32})


def test_episodes_come_in_the_order_of_recording(path: Path) -> None:
    reader = HDF5Reader(path)
    assert reader.episodes == [f"demo_{i}" for i in range(12)]
    assert len(reader) == 12
    for number, episode in enumerate(reader):
        assert episode.name == f"demo_{number}"
        check_episode(episode, number)
    check_episode(reader[-1], 11)
    check_episode(reader["demo_10"], 10)
    assert reader.attrs["weights_sha256"] == "ab" * 32
    assert reader.env_args["env_kwargs"] == {"size": 8}
    assert reader[2].attrs["reset_options"] == {"keep_world": True}
    assert sorted(["b10", "b9", "b"], key=natural_key) == ["b", "b9", "b10"]


def test_observations_before_and_after_share_the_frames(path: Path) -> None:
    episode = HDF5Reader(path)[1]
    assert len(episode.obs["rgb"]) == len(episode.next_obs["rgb"]) == len(episode) == 4
    assert np.array_equal(episode.next_obs["rgb"][-1], observation(1, 4)["rgb"])
    assert np.shares_memory(episode.obs["rgb"], episode.next_obs["rgb"])


ROWS = [0, -1, slice(None), slice(1, 3), slice(-2, None), slice(None, None, 2), slice(None, None, -1)]
ROWS += [slice(4, 0, -2), slice(3, 3), slice(9, 2)]


@pytest.mark.parametrize("rows", ROWS)
def test_lazy_rows_are_those_of_numpy(path: Path, rows: slice | int) -> None:
    reader = HDF5Reader(path)
    whole = reader[2].frames["rgb"]
    assert np.array_equal(reader.frames(2, "rgb", rows), whole[rows])


def test_a_reader_travels_to_another_process(path: Path) -> None:
    with HDF5Reader(path) as reader:
        copy = pickle.loads(pickle.dumps(reader))  # noqa: S301
    check_episode(copy[3], 3)


def test_wrong_places_and_keys_are_named(path: Path) -> None:
    reader = HDF5Reader(path)
    with pytest.raises(InputError, match="12 recorded, got 12"):
        reader[12]
    with pytest.raises(IndexError):
        reader[-13]
    with pytest.raises(InputError, match="'demo_99'"):
        reader["demo_99"]
    with pytest.raises(InputError, match="'rgb'"):
        reader.frames(0, "depths")
    with pytest.raises(InputError, match="got 99"):
        reader.frames(0, "rgb", 99)


def test_files_that_are_no_recording_are_refused(tmp_path: Path) -> None:
    missing, empty, text, plain, other, newer = (tmp_path / f"{name}.h5" for name in "abcdef")
    empty.touch()
    text.write_text("rgb,depth\n" * 100)
    with h5py.File(plain, "w") as file:
        file["x"] = 1
    with h5py.File(other, "w") as file:
        file["data/demo_0/actions"] = np.zeros((3, 2))
    write_file(newer, 1)
    with h5py.File(newer, "r+") as file:
        file.attrs["schema_version"] = 99
    with pytest.raises(FileFormatError, match="schema_version 1, got 99"):
        HDF5Reader(newer)
    for path in (missing, empty, text, plain, other, newer, tmp_path):
        with pytest.raises(FileFormatError):
            HDF5Reader(path)
        with pytest.raises(FileFormatError):
            repair(path)
    for path in (empty, text, plain, other, newer):
        before = path.read_bytes()
        with pytest.raises(MirageError):
            HDF5Writer(path, env_args=ENV_ARGS, mode="a")
        assert path.read_bytes() == before


def test_spaces_survive_as_json() -> None:
    spaces = gym.spaces.Dict(
        {
            "rgb": gym.spaces.Box(0, 255, (4, 5, 3), np.uint8),
            "limits": gym.spaces.Box(np.array([-1, -2], np.float32), np.array([1, np.inf], np.float32)),
            "turn": gym.spaces.Discrete(6, start=-2),
            "pair": gym.spaces.Tuple([gym.spaces.MultiDiscrete([2, 3]), gym.spaces.MultiBinary(4)]),
        }
    )
    assert space_from_dict(space_to_dict(spaces)) == spaces
    with pytest.raises(InputTypeError, match="Graph"):
        space_to_dict(gym.spaces.Graph(gym.spaces.Discrete(2), None))
    for described in ({}, {"space": "Cube"}, {"space": "Box", "low": 0}):
        with pytest.raises(FileFormatError):
            space_from_dict(described)


def test_json_holds_small_arrays_and_the_digest_of_large_ones() -> None:
    text = to_json({"start": Path("a/b"), "pose": np.eye(2), "image": np.zeros((64, 64, 3), np.uint8)})
    assert '"start": "a/b"' in text
    assert '"array": [[1.0, 0.0], [0.0, 1.0]]' in text
    assert '"sha256"' in text
    assert len(text) < 400


def test_recording_needs_neither_model_nor_environment() -> None:
    code = "import sys, mirage_sim.recording; print([name for name in sys.modules if name.startswith("
    code += "('torch', 'diffusers', 'mirage_sim.model', 'mirage_sim.envs', 'mirage_sim.world'))])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("held", [True, False])
def test_threads_may_share_a_reader(path: Path, held: bool) -> None:
    reader = HDF5Reader(path)
    failures = []

    def read(offset: int) -> None:
        try:
            for number in range(offset, offset + 12):
                with reader if held and number % 3 else contextlib.nullcontext():
                    check_episode(reader[number % 12], number % 12)
                    assert reader.frames(0, "rgb", 0).shape == (8, 8, 3)
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=read, args=(offset,)) for offset in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    with reader, reader:
        check_episode(reader[0], 0)


def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 2)
    with h5py.File(path) as file:
        demo = h5py.h5o.get_info(file["data/demo_1"].id).addr
        data = h5py.h5o.get_info(file["data"].id).addr
    content = path.read_bytes()
    path.write_bytes(content[:demo] + bytes(16) + content[demo + 16 :])
    reader = HDF5Reader(path)
    for use in (
        lambda: reader[1],
        lambda: reader.lengths,
        lambda: reader.keys(1),
        lambda: reader.intrinsics(1),
    ):
        with pytest.raises(FileFormatError, match="damaged"):
            use()
    assert repair(path).damaged == ("demo_1",)
    path.write_bytes(content[:data] + bytes(16) + content[data + 16 :])
    with pytest.raises(FileFormatError, match="must have `data`"):
        HDF5Reader(path)
