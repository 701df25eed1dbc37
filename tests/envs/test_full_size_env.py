"""The environment with a full-size model's folder, tiny, in the place of the embedded model."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import mirage_sim
from mirage_sim.envs.shared import shared_model
from mirage_sim.errors import InputError, InputTypeError
from tests.full_size import SMALL, write_full_size

START = {"image": np.random.default_rng(1).integers(0, 255, (32, 64, 3), dtype=np.uint8)}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return mirage_sim.load_world_model(write_full_size(tmp_path_factory.mktemp("full") / "model"), **SMALL)


@pytest.fixture(scope="module")
def env(model):
    return gym.make("Mirage/Explore-v0", world_model=model, prompt="a kitchen with red chairs")


def test_one_action_makes_all_pictures_of_a_segment(env):
    first, info = env.reset(seed=3, options=START)
    assert info["frames"].shape == (4, 32, 64, 3)
    obs, reward, _, _, info = env.step(np.array([1.0, 0.0, 0.0, 0.5, 0.0], np.float32))
    assert info["frames"].shape == (8, 32, 64, 3)
    assert np.array_equal(info["frames"][-1], obs["rgb"])
    assert reward >= 0
    assert np.linalg.norm(obs["cam2world"][:3, 3] - first["cam2world"][:3, 3]) == pytest.approx(0.25)
    assert set(info["timings_ms"]) >= {"read", "generate", "decode", "depth", "write"}


def test_the_environment_checker_passes(env):
    check_env(env.unwrapped, skip_render_check=True)


def test_a_prompt_of_an_episode_takes_the_place_of_the_environments(env):
    def look(**given) -> np.ndarray:
        env.reset(seed=3, options=START | given)
        return env.step(np.zeros(5, np.float32))[0]["rgb"]

    assert np.array_equal(look(), look(prompt="a kitchen with red chairs"))
    assert not np.array_equal(look(), look(prompt="a room"))


def test_a_saved_world_opens_with_its_prompt(env, tmp_path):
    env.reset(seed=4, options=START | {"prompt": "a room"})
    env.step(np.zeros(5, np.float32))
    env.unwrapped.save_world(tmp_path / "world")
    ahead = np.array([0.5, 0.0, 0.0, 0.0, 0.0], np.float32)
    expected = env.step(ahead)[0]["rgb"]
    env.reset(options={"world": tmp_path / "world"})
    assert np.array_equal(env.step(ahead)[0]["rgb"], expected)


def test_prompts_that_do_not_fit(model):
    with pytest.raises(InputTypeError, match="prompt must be a text or a Path, got int"):
        gym.make("Mirage/Explore-v0", world_model=model, prompt=3)
    with pytest.raises(InputError, match="prompts must be None for a model that attends to no text"):
        gym.make("Mirage/Explore-v0", prompt="a kitchen")
    env = gym.make("Mirage/Explore-v0", world_model=model)
    with pytest.raises(InputTypeError, match=r"options\['prompt'\] must be a text"):
        env.reset(options={"prompt": 3})


def test_settings_of_the_model_are_given_with_the_environment(model):
    env = gym.make("Mirage/Explore-v0", world_model=model, model_settings={"segment_length": 1, "width": 32})
    env.reset(seed=3, options={"image": START["image"][:, :32].copy()})
    _, _, _, _, info = env.step(np.zeros(5, np.float32))
    assert info["frames"].shape == (4, 32, 32, 3)
    assert model.config.width == 64
    for settings, error, message in (
        ({"widht": 32}, InputError, r"model_settings must be among .*width.*got \['widht'\]"),
        ({"width": 40}, InputError, "height and width must be multiples"),
        ({"sampler": "fast"}, InputTypeError, "model_settings must be a dict of numbers"),
    ):
        with pytest.raises(error, match=message):
            gym.make("Mirage/Explore-v0", world_model=model, model_settings=settings)


def test_settings_are_known_before_weights_are_loaded(tmp_path):
    folder = write_full_size(tmp_path / "wan")
    small, again, tall = (
        shared_model(folder, "cpu", {"height": height, "width": 64}) for height in (32, 32, 64)
    )
    assert small is again
    assert (small.config.height, tall.config.height) == (32, 64)
    assert small.generator is tall.generator
    with pytest.raises(InputError, match=r"model_settings must be among .*got \['device'\]"):
        shared_model(folder, "cpu", {"device": 0})
