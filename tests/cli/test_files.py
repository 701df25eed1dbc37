"""info, replay and repair: what they say of sound, changed, foreign and torn recordings."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import h5py
import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim.cli.main import EXIT_ERROR, main
from mirage_sim.cli.replay import compare
from mirage_sim.cli.rollout import RECORDING
from mirage_sim.recording import HDF5Reader, RecordHDF5
from mirage_sim.scenes import RENDERER
from tests.cli.conftest import Run
from tests.models import save_tiny_world_model


@pytest.fixture
def copied(rolled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(rolled / RECORDING, tmp_path / "walk.hdf5"))


def test_info_says_what_is_inside(run: Run, rolled: Path) -> None:
    code, told, _ = run("info", rolled / RECORDING)
    assert code == 0
    assert told["steps"] == 12
    assert told["model_id"] == "tiny"
    assert "OpenCV" in told["camera_convention"]
    assert told["observations"] == {"cam2world": "float32 [4, 4]", "rgb": "uint8 [32, 32, 3]"}
    assert told["episodes"]["demo_1"].startswith("6 steps, seed 4, reward ")


def test_info_for_people(rolled: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(rolled / RECORDING)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "  rgb: uint8 [32, 32, 3]" in lines
    assert "steps: 12" in lines


def test_replay_makes_a_video_or_a_sheet(run: Run, copied: Path) -> None:
    code, told, _ = run("replay", copied)
    assert (code, told["file"]) == (0, str(copied.with_suffix(".mp4")))
    with av.open(told["file"]) as video:
        assert sum(1 for _ in video.decode(video=0)) == 7
    code, told, _ = run("replay", copied, "--out", copied.parent / "new" / "s.png", "--columns", 4)
    assert code == 0
    with Image.open(told["file"]) as sheet:
        assert sheet.size == (4 * 34 - 2, 2 * 34 - 2)


def test_simulating_again_gives_the_same_bytes(run: Run, rolled: Path) -> None:
    code, told, _ = run("replay", rolled / RECORDING, "--check")
    assert code == 0
    assert told == {"passed": True, "episodes": 2, "steps": 12, "differences": [], "circumstances": []}


def test_recordings_tell_what_they_were_computed_on_and_checks_what_is_other(run: Run, copied: Path) -> None:
    code, told, _ = run("info", copied)
    assert code == 0
    with h5py.File(copied, "r+") as file:
        about = file["data"].attrs
        assert {"threads", "processor", "instructions", "dtype", "torch_version", "device"} <= set(about)
        about["torch_version"], about["threads"] = "2.0.0", "2"
    code, told, _ = run("replay", copied, "--check", "--tolerance", 0.5)
    assert code == 0
    assert told["circumstances"] == [
        f"torch_version: recorded with 2.0.0, simulated with {torch.__version__}"
    ]


def test_differences_within_the_tolerance_pass(run: Run, copied: Path) -> None:
    with h5py.File(copied, "r+") as file:
        file["data/demo_0/frames/rgb"][4, 10, 10, 1] ^= 2
        file["data/demo_0/rewards"][2] += 0.004
    assert run("replay", copied, "--check")[0] == 1
    code, told, _ = run("replay", copied, "--check", "--tolerance", 0.01)
    assert (code, told["differences"]) == (0, [])
    code, told, _ = run("replay", copied, "--check", "--tolerance", 0.005)
    assert told["differences"] == ["demo_0: rgb differs at step 4"]
    code, _, err = run("replay", copied, "--check", "--tolerance", -1)
    assert (code, "--tolerance must be in [0, 1), got -1.0" in err) == (EXIT_ERROR, True)


def test_a_changed_pixel_and_a_changed_action_are_found(run: Run, copied: Path) -> None:
    with h5py.File(copied, "r+") as file:
        demo = file["data/demo_0"]
        demo["frames/rgb"][4, 10, 10, 1] += 1
        demo["rewards"][2] += 0.5
        file["data/demo_1/actions"][3] = np.zeros(5)
    code, told, _ = run("replay", copied, "--check")
    assert code == 1
    assert not told["passed"]
    found = set(told["differences"])
    assert {"demo_0: rgb differs at step 4", "demo_0: reward differs at step 3"} <= found
    assert "demo_1: cam2world differs at step 4" in found
    assert "demo_0: cam2world differs at step 1" not in found


def test_checking_with_another_model_is_refused(run: Run, copied: Path, tmp_path: Path) -> None:
    other = save_tiny_world_model(tmp_path / "other", seed=1)
    code, _, err = run("replay", copied, "--check", "--world-model", other)
    assert code == EXIT_ERROR
    assert "needs weights_sha256" in err


def test_another_renderer_of_first_frames_is_named(run: Run, rolled: Path, copied: Path) -> None:
    assert HDF5Reader(rolled / RECORDING).attrs["renderer"] == RENDERER
    with h5py.File(copied, "r+") as file:
        del file["data"].attrs["renderer"]  # as recordings were before they named it
        file["data/demo_0/frames/rgb"][0, 10, 10, 1] += 1
    code, told, _ = run("replay", copied, "--check")
    assert (code, told["differences"]) == (1, ["demo_0: rgb differs at step 0"])
    assert told["circumstances"] == [f"renderer: recorded with TinyRenderer, simulated with {RENDERER}"]


def test_a_torn_tail_is_cut_off(run: Run, copied: Path) -> None:
    size = copied.stat().st_size
    with copied.open("ab") as file:
        file.write(b"torn" * 100)
    code, told, _ = run("repair", copied)
    assert code == 0
    assert (told["episodes"], told["torn_bytes"], told["damaged"]) == (2, 400, [])
    assert copied.stat().st_size == size


def test_episodes_in_one_place_are_simulated_again(run: Run, model_folder: Path, tmp_path: Path) -> None:
    path, elsewhere = tmp_path / "place.hdf5", np.eye(4, dtype=np.float32)
    elsewhere[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    env = RecordHDF5(gym.make("Mirage/Explore-v0", world_model=str(model_folder), max_episode_steps=3), path)
    for seed, options in ((5, {}), (None, {"keep_world": True, "cam2world": elsewhere}), (None, {})):
        env.reset(seed=seed, options=options)
        for _ in range(3):
            env.step(np.array([0.2, 0, 0, 0.5, 0], np.float32))
    env.close()
    code, told, _ = run("replay", path, "--check")
    assert (code, told["episodes"], told["differences"]) == (0, 3, [])


def test_an_episode_from_an_image_cannot_be_simulated_again(
    run: Run, model_folder: Path, tmp_path: Path
) -> None:
    path = tmp_path / "image.hdf5"
    env = RecordHDF5(gym.make("Mirage/Explore-v0", world_model=str(model_folder), max_episode_steps=1), path)
    image = np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8)
    env.reset(seed=5, options={"image": image, "depth": np.ones((32, 32), np.float64)})
    env.step(np.zeros(5, np.float32))
    env.close()
    code, _, err = run("replay", path, "--check")
    assert code == EXIT_ERROR
    assert "began from depth" in err


@pytest.mark.parametrize("command", ["info", "replay", "repair"])
def test_files_that_are_none_are_named(command: str, run: Run, tmp_path: Path) -> None:
    text = tmp_path / "text.hdf5"
    text.write_text("no recording")
    for path in (text, tmp_path / "missing.hdf5"):
        code, _, err = run(command, path)
        assert code == EXIT_ERROR
        assert err.startswith("mirage-sim: ")
        assert path.name in err or str(tmp_path) in err
        assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--out", "walk.gif"), "--out must end in .mp4 or .png"),
        (("--episode", 7), "episode must be within the 2 recorded, got 7"),
        (("--key", "taste"), "key must be one of"),
        (("--key", "cam2world"), "frames must be uint8"),
    ],
)
def test_wrong_wishes_are_named(words: tuple[object, ...], message: str, run: Run, copied: Path) -> None:
    code, _, err = run("replay", copied, *words)
    assert code == EXIT_ERROR
    assert message in err
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_an_episode_says_itself_under_what_circumstances_it_was_recorded(run: Run, copied: Path) -> None:
    with h5py.File(copied, "r+") as file:
        about = dict(file["data"].attrs)
        file["data"].attrs["torch_version"] = "2.0.0"
        for number, version in enumerate(("2.0.1", about["torch_version"])):
            own = {"renderer": RENDERER, "torch_version": version}
            file[f"data/demo_{number}"].attrs["circumstances"] = json.dumps(own)
    code, told, _ = run("replay", copied, "--check")
    assert (code, told["differences"]) == (0, [])
    assert told["circumstances"] == [
        f"torch_version: recorded with 2.0.1, simulated with {torch.__version__}"
    ]


class Unknown(gym.Env[Any, Any]):
    """Sees NaN where it knows nothing."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        return np.array([np.nan, 1], np.float32), {}

    def step(self, action: Any) -> Any:
        return np.array([action, np.nan], np.float32), 0.0, False, False, {}


def test_an_observation_with_nan_is_the_same_again(tmp_path: Path) -> None:
    env = RecordHDF5(Unknown(), tmp_path / "a.h5")
    env.reset(seed=0)
    env.step(1)
    env.close()
    episode = HDF5Reader(tmp_path / "a.h5")[0]
    for tolerance in (0.0, 0.1):
        assert compare(Unknown(), episode, tolerance) == []
    episode.frames["observation"][1] = 1, 0
    for tolerance in (0.0, 0.1):
        assert compare(Unknown(), episode, tolerance) == ["demo_0: observation differs at step 1"]
