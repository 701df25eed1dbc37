"""Gymnasium's own wrappers run over the environment, where what they need is installed (extra `wrappers`)."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym
import pytest

from tests.models import save_tiny_world_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny_world_model(tmp_path_factory.mktemp("wrappers") / "model"))


def test_a_video_is_recorded(folder: str, tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    env = gym.make("Mirage/Explore-v0", world_model=folder, render_mode="rgb_array")
    with gym.wrappers.RecordVideo(env, str(tmp_path), disable_logger=True) as recorder:
        recorder.reset(seed=0)
        for _ in range(3):
            recorder.step(recorder.action_space.sample())
    (video,) = tmp_path.glob("*.mp4")
    assert video.stat().st_size > 500


def test_pictures_are_resized_and_turned_grey(folder: str) -> None:
    pytest.importorskip("cv2")
    env = gym.make("Mirage/Explore-v0", world_model=folder, observations=["rgb"])
    pictures = gym.wrappers.TransformObservation(env, lambda seen: seen["rgb"], env.observation_space["rgb"])
    small = gym.wrappers.ResizeObservation(pictures, (16, 20))
    with gym.wrappers.GrayscaleObservation(small) as grey:
        observation, _ = grey.reset(seed=0)
        assert small.observation_space.shape == (16, 20, 3)
        assert observation.shape == grey.observation_space.shape == (16, 20)
