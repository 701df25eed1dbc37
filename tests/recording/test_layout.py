"""The file as others see it: plain h5py, another process, another name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest

from mirage_sim.errors import RecordingError
from mirage_sim.recording import HDF5Reader, HDF5Writer
from tests.recording.samples import ENV_ARGS, check_episode, observation, record, write_file

ROBOMIMIC_READER = """
import json, sys, h5py, numpy as np
with h5py.File(sys.argv[1], "r") as f:
    data = f["data"]
    env = json.loads(data.attrs["env_args"])
    assert env["env_name"] == "Toy/Walk-v0" and env["type"] == env["env_type"] == 2, env
    demos = [name.decode() for name in np.array(f["mask/train"][:])]
    assert demos == ["demo_0", "demo_10"], demos
    total = 0
    for name in sorted(data, key=lambda name: int(name[5:])):
        demo = data[name]
        n = demo.attrs["num_samples"]
        total += n
        for key in ("actions", "rewards", "dones", "terminated", "truncated", "coverage"):
            assert len(demo[key]) == n, key
        assert demo["actions"].shape == (n, 5) and demo["cam2world"].shape == (n + 1, 4, 4)
        for group in ("obs", "next_obs"):
            assert demo[group]["rgb"].shape == (n, 8, 8, 3) and demo[group]["rgb"].dtype == np.uint8
        obs, after = demo["obs/rgb"][()], demo["next_obs/rgb"][()]
        assert (obs[1:] == after[:-1]).all() and obs.any() and after[-1].any()
        assert demo["dones"][()].tolist() == [0] * (n - 1) + [1]
    assert data.attrs["total"] == total
    assert "mirage_sim" not in sys.modules
"""


def test_plain_h5py_reads_the_robomimic_layout_after_a_move(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 12)
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a") as writer:
        writer.set_filter("train", ["demo_0", "demo_10"])
    (tmp_path / "elsewhere").mkdir()
    moved = path.rename(tmp_path / "elsewhere" / "b.hdf5")
    subprocess.run([sys.executable, "-c", ROBOMIMIC_READER, str(moved)], check=True, cwd="/", timeout=60)
    with h5py.File(moved) as file:
        for number in range(12):
            views = (file[f"data/demo_{number}/{group}/rgb"][()] for group in ("obs", "next_obs"))
            for shift, view in enumerate(views):
                expected = [observation(number, step + shift)["rgb"] for step in range(len(view))]
                assert np.array_equal(view, np.stack(expected))


def test_each_image_is_stored_once_and_compressed(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 4, (41, 64, 64, 3), dtype=np.uint8)
    with HDF5Writer(tmp_path / "a.h5", env_args=ENV_ARGS) as writer:
        writer.write_episode({"rgb": frames}, rng.random((40, 2)))
    assert (tmp_path / "a.h5").stat().st_size < 0.5 * frames.nbytes
    with h5py.File(tmp_path / "a.h5") as file:
        demo = file["data/demo_0"]
        assert demo["obs/rgb"].is_virtual
        assert demo["next_obs/rgb"].is_virtual
        assert demo["frames/rgb"].chunks == (1, 64, 64, 3)


def test_filters_are_replaced_one_by_one(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    with HDF5Writer(path, env_args=ENV_ARGS) as writer:
        for number in range(3):
            record(writer, number)
        writer.set_filter("train", ["demo_0"])
        writer.set_filter("valid", ["demo_2"])
        writer.set_filter("train", ["demo_1", "demo_0"])
        writer.set_filter("none", [])
        record(writer, 3)
    reader = HDF5Reader(path)
    assert reader.filters == {"train": ["demo_1", "demo_0"], "valid": ["demo_2"], "none": []}
    with h5py.File(path) as file:
        assert set(file) == {"data", "mask"}
    for number in range(4):
        check_episode(reader[number], number)


def test_many_episodes_cost_little_room_and_stay_readable(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    sizes = []
    with HDF5Writer(path, env_args=ENV_ARGS, fsync=False) as writer:
        for i in range(150):
            writer.write_episode({"x": np.full((3, 2), i)}, np.zeros((2, 1)), seed=i)
            sizes.append(path.stat().st_size)
    reader = HDF5Reader(path)
    assert reader.episodes == [f"demo_{i}" for i in range(150)]
    with reader:
        assert [int(reader.frames(i, "x", -1)[0]) for i in range(150)] == list(range(150))
    first, last = sizes[49] - sizes[9], sizes[149] - sizes[109]
    assert last < 1.5 * first, "room per episode must not grow with their number"


def test_appending_needs_the_same_environment_and_model(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 2, metadata={"model_id": "small", "settings": {"b": 1}})
    before = path.read_bytes()
    with pytest.raises(RecordingError, match="must name 'Toy/Walk-v0'"):
        HDF5Writer(path, env_args={"env_name": "Other-v0"}, mode="a")
    with pytest.raises(RecordingError, match=r"metadata\['model_id'\] must be 'small'"):
        HDF5Writer(path, env_args=ENV_ARGS, mode="a", metadata={"model_id": "large"})
    with pytest.raises(RecordingError, match="must not exist"):
        HDF5Writer(path, env_args=ENV_ARGS, mode="x")
    assert path.read_bytes() == before
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a", metadata={"settings": {"b": 1}}) as writer:
        assert record(writer, 2) == "demo_2"
    for number in range(3):
        check_episode(HDF5Reader(path)[number], number)


def test_a_file_changed_with_h5py_can_still_be_appended_to(tmp_path: Path) -> None:
    path = write_file(tmp_path / "a.h5", 10)
    with h5py.File(path, "r+") as file:
        file["data/demo_3"].attrs["note"] = "looked at"
        file["data"].attrs["author"] = "someone"
        file["extra"] = np.arange(5)
        del file["data/demo_9"]
    with HDF5Writer(path, env_args=ENV_ARGS, mode="a") as writer:
        assert record(writer, 9) == "demo_9"
    with h5py.File(path) as file:
        assert file["extra"][()].tolist() == list(range(5))
        assert file["data/demo_3"].attrs["note"] == "looked at"
    for number in range(10):
        check_episode(HDF5Reader(path)[number], number)
