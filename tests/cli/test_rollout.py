"""rollout: files that open, figures that fit them, errors of one line, nothing half-written."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import av
import gymnasium as gym
import numpy as np
import pytest
from PIL import Image

from mirage_sim.cli import rollout
from mirage_sim.cli.main import EXIT_ERROR, EXIT_INTERRUPTED
from mirage_sim.recording import HDF5Reader
from tests.cli.conftest import Run


def test_everything_that_was_seen_is_kept(rolled: Path) -> None:
    reader = HDF5Reader(rolled / rollout.RECORDING)
    assert len(reader) == 2
    assert [episode.seed for episode in reader] == [3, 4]
    assert [len(episode) for episode in reader] == [6, 6]
    assert reader.attrs["agent"] == "yaw_return"
    assert reader.attrs["model_id"] == "tiny"
    for number in range(2):
        with av.open(str(rolled / f"episode_{number:03d}.mp4")) as video:
            assert sum(1 for _ in video.decode(video=0)) == 7
    with Image.open(rolled / rollout.SHEET) as sheet:
        assert sheet.size == (7 * 34 - 2, 2 * 32 + 8)


def test_results_are_the_last_line(run: Run, model_folder: Path, tmp_path: Path) -> None:
    code, told, err = run(
        "rollout", "--world-model", model_folder, "--steps", 4, "--agent", "random", "--out", tmp_path
    )
    assert code == 0
    assert "step" in err, "progress belongs on stderr"
    assert told["steps"] == 4
    assert len(told["reward"]) == 1
    assert 0 <= told["mean_coverage"] <= 1
    for path in (told["files"]["recording"], told["files"]["contact_sheet"], *told["files"]["videos"]):
        assert Path(path).stat().st_size > 0


def test_arguments_of_the_environment_pass_through(run: Run, model_folder: Path, tmp_path: Path) -> None:
    words = ("--env-arg", "action_mode=discrete", "--env-arg", 'observations=["cam2world", "coverage"]')
    code, told, _ = run(
        "rollout",
        *("--world-model", model_folder, "--steps", 8, "--agent", "frontier", "--out", tmp_path),
        *words,
    )
    assert code == 0
    assert set(told["files"]) == {"recording"}, "no images, no pictures"
    episode = HDF5Reader(told["files"]["recording"])[0]
    assert episode.actions.shape == (8, 1)
    assert set(episode.frames) == {"cam2world", "coverage"}


def test_an_earlier_rollout_is_replaced_only_when_asked(run: Run, model_folder: Path, tmp_path: Path) -> None:
    words = ("rollout", "--world-model", model_folder, "--steps", 2, "--out", tmp_path)
    assert run(*words)[0] == 0
    before = (tmp_path / rollout.RECORDING).read_bytes()
    code, _, err = run(*words)
    assert code == EXIT_ERROR
    assert "--overwrite" in err
    assert (tmp_path / rollout.RECORDING).read_bytes() == before
    assert run(*words, "--overwrite", "--seed", 9)[0] == 0
    assert HDF5Reader(tmp_path / rollout.RECORDING)[0].seed == 9


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--episodes", 0), "--episodes must be at least 1, got 0"),
        (("--steps", -1), "--steps must be at least 1, got -1"),
        (("--seed", -5), "--seed must be at least 0, got -5"),
        (("--env", "Nowhere-v0"), "--env must be a registered environment"),
        (("--env-arg", "memory"), "--env-arg must be NAME=VALUE, got 'memory'"),
        (("--env-arg", "colour=red"), "--env-arg must name arguments of Mirage/Explore-v1"),
        (("--env-arg", "action_mode=fly"), "action_mode must be one of"),
        (("--world-model", "/nowhere"), "'/nowhere', which does not exist"),
        (("--device", "abacus"), "device must be"),
    ],
)
def test_errors_are_one_line_and_leave_nothing(
    words: tuple[Any, ...], message: str, run: Run, model_folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    code, _, err = run("rollout", "--world-model", model_folder, "--out", out, *words)
    assert code == EXIT_ERROR
    assert message in err
    assert err.count("\n") == 1
    assert err.startswith("mirage-sim: ")
    assert not out.exists()


@pytest.mark.parametrize(("after", "kept"), [(0, 0), (5, 2)])
def test_ctrl_c_keeps_whole_episodes_and_nothing_else(
    after: int,
    kept: int,
    run: Run,
    model_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened = rollout.open_env

    class Interrupting(gym.Wrapper[Any, Any, Any, Any]):
        steps = 0

        def step(self, action: Any) -> Any:
            if self.steps == after:
                raise KeyboardInterrupt
            self.steps += 1
            return super().step(action)

    monkeypatch.setattr(rollout, "open_env", lambda *args, **kwargs: Interrupting(opened(*args, **kwargs)))
    words = ("--world-model", model_folder, "--steps", 4, "--episodes", 3, "--out", tmp_path)
    code, _, err = run("rollout", *words)
    assert code == EXIT_INTERRUPTED
    assert err.endswith("mirage-sim: interrupted\n")
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == ([rollout.RECORDING] if kept else [])
    if kept:
        reader = HDF5Reader(tmp_path / rollout.RECORDING)
        assert [len(episode) for episode in reader] == [4, 1]
        assert reader[1].attrs["cut"]


def test_frames_for_a_sheet_hold_the_first_and_the_last() -> None:
    frames = np.arange(65)
    picked = rollout.pick_frames(frames, 16)
    assert len(picked) == 16
    assert (picked[0], picked[-1]) == (0, 64)
    np.testing.assert_array_equal(rollout.pick_frames(frames[:3], 16), [0, 1, 2])
