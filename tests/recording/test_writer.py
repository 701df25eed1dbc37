"""What the writer takes and refuses."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mirage_sim.errors import InputError, InputTypeError, MirageError, RecordingError, StateError
from mirage_sim.recording import HDF5Reader, HDF5Writer
from tests.recording.samples import ENV_ARGS, record

DTYPES = st.sampled_from(["u1", "i2", "i8", "f2", "f4", "f8", "?"])


@settings(max_examples=25)
@given(data=st.data())
def test_any_numeric_observation_comes_back_bit_for_bit(data: st.DataObject) -> None:
    steps = data.draw(st.integers(1, 5))
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)
    frames = {
        key: data.draw(hnp.arrays(data.draw(DTYPES), (steps + 1, *data.draw(shapes)))) for key in ("a", "b")
    }
    rewards = data.draw(hnp.arrays("f8", steps, elements=st.floats(-1e6, 1e6)))
    compression = data.draw(st.sampled_from(["gzip", "lzf", None]))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.h5"
        with HDF5Writer(path, env_args=ENV_ARGS, compression=compression, fsync=False) as writer:
            writer.write_episode(frames, rewards=rewards, note="fuzz")
        episode = HDF5Reader(path)[0]
    for key, value in frames.items():
        assert episode.frames[key].dtype == value.dtype
        assert episode.frames[key].tobytes() == value.tobytes()
    assert episode.rewards.tobytes() == rewards.tobytes()
    assert episode.actions.shape == (steps, 0)
    assert episode.attrs["note"] == "fuzz"


@pytest.fixture
def writer(tmp_path: Path) -> Any:
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS, fsync=False) as writer:
        writer.begin_episode()
        yield writer


OBS = {"x": np.zeros(3, np.float32)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": None}, "obs must be given with the first step"),
        ({"obs": {}}, "obs must be laid out as next_obs"),
        ({"next_obs": {"x": np.zeros(4, np.float32)}}, "obs must be laid out as next_obs"),
        ({"next_obs": {"camera/rgb": np.zeros(3)}}, "a key of next_obs must be text without '/'"),
        ({"next_obs": np.zeros(3)}, "next_obs must map keys to arrays"),
        ({"next_obs": {"x": "text"}}, r"next_obs\['x'\] must be an array of numbers"),
        ({"action": [np.nan]}, "action must be finite"),
        ({"action": [[1.0]]}, r"action must be \[A\]"),
        ({"reward": float("inf")}, "reward must be finite"),
        ({"extras": {"actions": 1.0}}, "extras must not repeat"),
        ({"extras": {"cam2world": np.eye(4)}}, "initial must hold cam2world"),
        ({"next_obs": {**OBS, "cam2world": np.eye(3)}}, r"cam2world must be \[4, 4\]"),
        ({"next_obs": {**OBS, "intrinsics": np.full((3, 3), np.nan)}}, "intrinsics must be finite"),
    ],
)
def test_a_bad_step_is_named_and_nothing_of_it_is_kept(
    writer: HDF5Writer, changes: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {
        "obs": OBS,
        "action": [0.0],
        "reward": 0.0,
        "terminated": False,
        "truncated": False,
        "next_obs": OBS,
    }
    with pytest.raises((InputError, InputTypeError), match=message):
        writer.append(**{**good, **changes})
    writer.append(**good)
    assert writer.end_episode() == "demo_0"
    assert len(HDF5Reader(writer.path)[0]) == 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs": {"x": np.ones(3, np.float32)}}, "must be next_obs of the step before"),
        (
            {"next_obs": {"x": np.zeros(3)}},
            r"frames/x must stay float32\[3\] in an episode, got float64\[3\]",
        ),
        ({"next_obs": {"y": np.zeros(3)}}, r"next_obs must keep the keys \['x'\]"),
        ({"extras": {"_coverage": 1.0}}, "extras must not hold '_coverage', which is the mask"),
        ({"extras": {"a/b": 1.0}}, "a key of extras must be text without '/'"),
        ({"extras": {"coverage": 0.5, "intrinsics": 2 * np.eye(3)}}, "intrinsics must stay the same"),
        ({"action": [0.0, 1.0]}, "actions must stay"),
    ],
)
def test_a_step_that_does_not_fit_the_one_before_is_named(
    writer: HDF5Writer, changes: dict[str, Any], message: str
) -> None:
    good: dict[str, Any] = {
        "obs": OBS,
        "action": [0.0],
        "reward": 0.0,
        "terminated": False,
        "truncated": False,
        "next_obs": OBS,
    }
    good["extras"] = {"coverage": 0.5, "intrinsics": np.eye(3)}
    writer.append(**good)
    with pytest.raises(InputError, match=message):
        writer.append(**{**good, **changes})
    writer.append(**good)
    writer.end_episode()
    assert len(HDF5Reader(writer.path)[0]) == 2


def test_observations_may_be_reused_by_the_environment(writer: HDF5Writer) -> None:
    buffer = np.zeros(3)
    before = {"x": buffer.copy()}
    for step in range(3):
        buffer += 1
        writer.append(before, step, 0.0, False, False, {"x": buffer})
        before = {"x": buffer.copy()}
    writer.end_episode()
    assert HDF5Reader(writer.path)[0].frames["x"][:, 0].tolist() == [0, 1, 2, 3]


def test_an_episode_that_nothing_ended_is_marked_cut(writer: HDF5Writer) -> None:
    writer.append(OBS, 0, 0.0, False, False, OBS)
    writer.append(OBS, 0, 0.0, False, False, OBS)
    writer.end_episode(success=False)
    writer.begin_episode()
    assert writer.end_episode() is None
    episode = HDF5Reader(writer.path)[0]
    assert episode.truncated.tolist() == [False, True]
    assert episode.dones.tolist() == [False, True]
    assert episode.attrs["cut"] is True
    assert episode.attrs["success"] is False
    assert len(HDF5Reader(writer.path)) == 1


def test_running_episodes_side_by_side_do_not_mix(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with HDF5Writer(path, env_args=ENV_ARGS) as writer:
        streams = [writer.open_episode(env_index=i) for i in range(3)]
        for step in range(4):
            for i, stream in enumerate(streams):
                obs = {"x": np.full(2, 10 * i + step)}
                stream.append(obs, i, 0.0, False, step == 3, {"x": obs["x"] + 1})
        for i in (2, 0, 1):
            writer.finish_episode(streams[i])
        with pytest.raises(StateError):
            writer.finish_episode(streams[0])
        with pytest.raises(StateError):
            streams[0].append(OBS, 0, 0.0, False, False, OBS)
    for place, i in enumerate((2, 0, 1)):
        episode = HDF5Reader(path)[place]
        assert episode.attrs["env_index"] == i
        assert episode.frames["x"][:, 0].tolist() == [10 * i + step for step in range(5)]


def test_calls_in_the_wrong_state_and_options_are_named(tmp_path: Path) -> None:
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS) as writer:
        with pytest.raises(StateError, match="begin_episode first"):
            writer.end_episode()
        with pytest.raises(StateError, match="begin_episode first"):
            writer.append(OBS, 0, 0.0, False, False, OBS)
        writer.begin_episode()
        with pytest.raises(StateError, match="ended first"):
            writer.begin_episode()
        with pytest.raises(InputError, match="demo_7"):
            writer.set_filter("train", ["demo_7"])
        with pytest.raises(InputError, match="2 rows for 3 frames, got 1"):
            writer.write_episode({"x": np.zeros((3, 1))}, np.zeros((1, 1)))
        with pytest.raises(InputError, match="same length"):
            writer.write_episode({"x": np.zeros((3, 1)), "y": np.zeros((2, 1))})
        with pytest.raises(InputTypeError, match="pickled"):
            pickle.dumps(writer)
    with pytest.raises(InputError, match='mode must be "x" or "a"'):
        HDF5Writer(tmp_path / "b.h5", env_args=ENV_ARGS, mode="w")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="compression"):
        HDF5Writer(tmp_path / "b.h5", env_args=ENV_ARGS, compression="zip")  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="env_name"):
        HDF5Writer(tmp_path / "b.h5", env_args={})
    with pytest.raises(InputTypeError, match="None"):
        HDF5Writer(tmp_path / "b.h5", env_args=ENV_ARGS, metadata={"model_id": None})
    for metadata in ({"model": "a\0b"}, {"a\0b": 1}, {"": 1}, {"model": "\udc80"}):
        with pytest.raises(InputError, match=r"attribute .* text without NUL"):
            HDF5Writer(tmp_path / "b.h5", env_args=ENV_ARGS, metadata=metadata)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.h5"]


def test_numbers_of_any_kind_are_recorded_as_they_are(tmp_path: Path) -> None:
    """Whatever their byte order, strides and library; what NumPy does not know is kept in float32."""
    depth = np.arange(6, dtype=np.float32).reshape(2, 3)
    lens = np.array([[5.0, 0.0, 1.5], [0.0, 5.0, 1.0], [0.0, 0.0, 1.0]])
    obs = {"depth": depth.astype(">f4")[::-1], "cam2world": torch.eye(4, requires_grad=True)}
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS, fsync=False) as writer:
        writer.begin_episode(initial={"intrinsics": torch.from_numpy(lens).bfloat16()})
        action = torch.tensor([0.5, -0.25], dtype=torch.bfloat16)
        writer.append(obs, action, torch.tensor(1.5), False, True, obs, {"coverage": torch.tensor(0.5)})
        writer.end_episode()
        with pytest.raises(InputTypeError, match=r"actions must be an array of numbers, got dtype <U1"):
            writer.write_episode({"x": np.zeros((2, 1))}, actions=["a"])
    episode = HDF5Reader(tmp_path / "a.h5")[0]
    assert episode.frames["depth"].dtype == np.float32
    np.testing.assert_array_equal(episode.frames["depth"], [depth[::-1]] * 2)
    np.testing.assert_array_equal(episode.actions, [[0.5, -0.25]])
    np.testing.assert_array_equal(episode.intrinsics, lens)
    assert (episode.rewards.tolist(), episode.extras["coverage"].tolist()) == ([1.5], [0.5])


@pytest.mark.parametrize("mode", ["x", "a"])
def test_paths_where_no_recording_can_be_are_named(tmp_path: Path, mode: Any) -> None:
    (tmp_path / "file").touch()
    places = {
        tmp_path: r"a folder|Is a directory",
        tmp_path / "missing" / "b.h5": "its folder does not exist",
        tmp_path / "file" / "b.h5": "its folder does not exist",
    }
    if Path("/proc").is_dir():
        places[Path("/proc/b.h5")] = "could not be created"
    for place, message in places.items():
        with pytest.raises(OSError, match=message) as refused:
            HDF5Writer(place, env_args=ENV_ARGS, mode=mode)
        assert isinstance(refused.value, MirageError)
        assert str(place) in str(refused.value)
        assert ".new" not in str(refused.value)
    with pytest.raises(InputError, match="path must not hold NUL"):
        HDF5Writer(f"{tmp_path}/a\0b.h5", env_args=ENV_ARGS, mode=mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_a_folder_deleted_while_recording_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    writer = HDF5Writer(folder / "a.h5", env_args=ENV_ARGS)
    record(writer, 0)
    writer.begin_episode()
    writer.append(OBS, 0, 0.0, False, False, OBS)
    shutil.rmtree(folder)
    with pytest.raises(RecordingError, match=r"a\.h5 was deleted while it was written"):
        writer.end_episode()
    with pytest.raises(RecordingError, match=r"an episode could not be begun in .*folder: No such file"):
        writer.begin_episode()
    writer.close()
    assert list(tmp_path.iterdir()) == []


def test_a_recording_may_be_moved_while_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with HDF5Writer("a.h5", env_args=ENV_ARGS) as writer:
        record(writer, 0)
        (tmp_path / "a.h5").rename(tmp_path / "b.h5")
        (tmp_path / "deep").mkdir()
        monkeypatch.chdir(tmp_path / "deep")
        record(writer, 1)
    assert len(HDF5Reader(tmp_path / "b.h5")) == 2
    assert list((tmp_path / "deep").iterdir()) == []


def test_recording_works_where_there_is_no_fcntl(tmp_path: Path) -> None:
    code = "import sys; sys.modules['fcntl'] = None; from mirage_sim.recording import *; "
    code += "HDF5Writer(sys.argv[1], env_args={'env_name': 'toy'}).write_episode({'x': [1, 2]})"
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.h5")], check=True, timeout=60)
    assert len(HDF5Reader(tmp_path / "a.h5")) == 1


def test_a_disk_that_is_full_from_the_start_is_named(tmp_path: Path) -> None:
    code = """
import resource, sys
from mirage_sim.errors import RecordingError
from mirage_sim.recording import HDF5Writer
for limit in (100, 2000, 6000, 9000):
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
    try:
        HDF5Writer(sys.argv[1], env_args={"env_name": "toy"})
    except RecordingError as error:
        print(error)
"""
    path = tmp_path / "a.h5"
    command = [sys.executable, "-c", code, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines() == [f"{path} could not be created: File too large"] * 4
    assert list(tmp_path.iterdir()) == []


def test_another_file_in_its_place_is_not_taken_for_the_recording(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    writer = HDF5Writer(path, env_args=ENV_ARGS, fsync=False)
    writer.begin_episode()
    writer.append(OBS, 0, 0.0, False, False, OBS)
    path.unlink()
    path.write_text("another")
    with pytest.raises(RecordingError, match=r"a\.h5 was deleted while it was written"):
        writer.end_episode()
    writer.close()
    assert path.read_text() == "another"


def test_circumstances_may_change_between_episodes(tmp_path: Path) -> None:
    path, computed = tmp_path / "a.h5", {"threads": "2", "torch_version": "2.0", "gpu": "A"}
    spec = {"id": "Toy/Walk-v0", "kwargs": {"size": 8}}

    def append(circumstances: Any, kwargs: Any = None, **metadata: Any) -> None:
        described = {"env_spec": json.dumps({**spec, "kwargs": {"size": 8, **(kwargs or {})}}), **metadata}
        options: dict[str, Any] = {"env_args": ENV_ARGS, "mode": "a", "fsync": False}
        with HDF5Writer(path, metadata=described, circumstances=circumstances, **options) as writer:
            record(writer, len(writer.episodes))

    append(computed, model_id="toy")
    append(computed, model_id="toy")
    append({"threads": "4", "torch_version": "2.1"}, {"threads": 4}, model_id="toy")
    append(None)
    with pytest.raises(RecordingError, match=r"metadata\['model_id'\] must be 'toy'"):
        append(computed, model_id="other")
    with pytest.raises(RecordingError, match=r"metadata\['env_spec'\] must be"):
        append(computed, {"size": 9})
    reader = HDF5Reader(path)
    assert {name: reader.attrs[name] for name in computed} == computed
    own = [episode.attrs.get("circumstances") for episode in reader]
    assert own == [None, None, {"threads": "4", "torch_version": "2.1"}, None]


def test_a_file_without_circumstances_takes_episodes_with_them(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    for circumstances in (None, {"threads": 2}):
        with HDF5Writer(path, env_args=ENV_ARGS, circumstances=circumstances, mode="a") as writer:
            record(writer, len(writer.episodes))
    assert [episode.attrs.get("circumstances") for episode in HDF5Reader(path)] == [None, {"threads": 2}]
