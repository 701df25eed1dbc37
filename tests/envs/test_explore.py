import copy
import pickle
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from gymnasium.wrappers import RecordVideo, TimeLimit

import mirage_sim
from mirage_sim.checkpoints import load_world_model
from mirage_sim.envs import ExploreEnv
from mirage_sim.envs.config import OBSERVATIONS
from mirage_sim.errors import FileFormatError, StateError
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.model.world_model import WorldModel
from mirage_sim.recording import HDF5Reader, RecordHDF5
from tests.envs.conftest import SIZE, same

Make = Callable[..., ExploreEnv]
INFO_KEYS = {"coverage", "memory_entries", "memory_bytes", "collision", "timings_ms", "seed", "intrinsics"}


def tuple_to_dict(results: tuple[Any, ...]) -> dict[int, Any]:
    return dict(enumerate(results))


def walk(env: Any, steps: int = 3, seed: int = 4) -> list[Any]:
    env.action_space.seed(seed)
    return [env.step(env.action_space.sample()) for _ in range(steps)]


def test_import_registers_without_torch() -> None:
    code = (
        "import sys, mirage_sim, gymnasium as gym; gym.spec('Mirage/Explore-v0');"
        "assert not {'torch', 'diffusers', 'pybullet', 'matplotlib'} & set(sys.modules), sys.modules;"
        "assert 'load_world_model' in dir(mirage_sim)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(mirage_sim.__file__).parents[1])
    assert mirage_sim.load_world_model is load_world_model
    with pytest.raises(AttributeError, match="nothing_of_that_name"):
        _ = mirage_sim.nothing_of_that_name


@pytest.mark.parametrize("action_mode", ["relative", "pose", "discrete"])
@pytest.mark.filterwarnings("ignore:.*Box observation space.*")
def test_check_env(model_folder: Path, painted: None, action_mode: str) -> None:
    env = gym.make(
        "Mirage/Explore-v0",
        world_model=str(model_folder),
        action_mode=action_mode,
        observations=OBSERVATIONS,
        collide=True,
    )
    check_env(env.unwrapped)


def test_starts_from_a_real_flat(model_folder: Path) -> None:
    env = gym.make("Mirage/Explore-v0", world_model=str(model_folder), max_episode_steps=2)
    obs, info = env.reset(seed=5)
    assert obs in env.observation_space
    assert info["memory_entries"] > 0
    again, _ = env.reset(seed=5)
    assert same(obs, again)
    pose = torch.from_numpy(obs["cam2world"])
    other, _ = env.reset(seed=5, options={"scene_seed": 7, "cam2world": pose})
    assert np.array_equal(other["cam2world"], obs["cam2world"])
    assert not np.array_equal(other["rgb"], obs["rgb"])
    assert [env.step(env.action_space.sample())[3] for _ in range(2)] == [False, True]


def test_same_seed_and_actions_give_the_same_bytes(make_env: Make) -> None:
    runs = []
    for _ in range(2):
        env = make_env(observations=OBSERVATIONS)
        runs.append([env.reset(seed=9), *walk(env)])
    assert all(same(tuple_to_dict(a), tuple_to_dict(b)) for a, b in zip(*runs, strict=True))
    env = make_env()
    different = env.reset(seed=10)[0]
    assert not same(different["rgb"], runs[0][0][0]["rgb"])


def test_info_tells_what_it_should_and_its_seed_repeats_the_episode(make_env: Make) -> None:
    env = make_env(observations=("coverage",))
    env.reset(seed=1)
    first, info = env.reset()
    assert set(info) == INFO_KEYS | {"cam2world"}
    after = walk(env)
    assert set(after[0][4]) == INFO_KEYS | {"cam2world"}
    assert set(after[0][4]["timings_ms"]) == {"read", "generate", "depth", "write", "decode"}
    assert info["memory_bytes"] > 0
    assert info["intrinsics"].shape == (3, 3)
    again, _ = env.reset(seed=info["seed"])
    assert same(first, again)
    for (obs, reward, *_), (other, reward_too, *_) in zip(after, walk(env), strict=True):
        assert same(obs, other)
        assert reward == reward_too


def test_nothing_is_decoded_unless_somebody_looks(
    make_env: Make, model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[int] = []
    decode = model.codec.decode
    monkeypatch.setattr(model.codec, "decode", lambda *given: calls.append(1) or decode(*given))
    blind, seeing = (
        make_env(observations=("latents",)),
        make_env(observations=("latents",), render_mode="rgb_array"),
    )
    for env, steps in ((blind, 0), (seeing, 2)):
        env.reset(seed=0)
        calls.clear()
        walk(env, 2)
        assert len(calls) == steps
    assert seeing.render().shape == (SIZE, SIZE, 3)


def test_reward_is_the_surface_newly_seen(make_env: Make) -> None:
    env = make_env(action_mode="discrete")
    env.reset(seed=2)
    entries = env.reset(seed=2)[1]["memory_entries"]
    turned = [env.step(1) for _ in range(4)]
    assert sum(step[1] for step in turned) > 0
    assert turned[-1][4]["memory_entries"] > entries
    forgetful = make_env(action_mode="discrete", memory=False)
    forgetful.reset(seed=2)
    _, reward, _, _, info = forgetful.step(1)
    assert (reward, info["memory_entries"], info["coverage"]) == (0.0, 0, 0.0)


def test_stop_terminates(make_env: Make) -> None:
    env = make_env(action_mode="discrete")
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    assert env.step(5)[2:4] == (True, False)


def test_keep_world_keeps_the_memory_and_puts_the_camera_back(make_env: Make) -> None:
    env = make_env(action_mode="discrete")
    first, _ = env.reset(seed=3)
    for action in (1, 1, 0):
        *_, info = env.step(action)
    obs, kept = env.reset(options={"keep_world": True})
    assert np.array_equal(obs["cam2world"], first["cam2world"])
    assert kept["memory_entries"] >= info["memory_entries"]
    assert kept["coverage"] > 0.5
    pose = from_yaw_pitch((0.1, 0.0, 1.4), 0.5).numpy()
    obs, _ = env.reset(options={"keep_world": True, "cam2world": pose})
    assert np.array_equal(obs["cam2world"], pose)
    obs, _ = env.reset(options={"keep_world": True})
    assert np.array_equal(obs["cam2world"], first["cam2world"]), "the start of the place moved"


def test_starts_from_an_image(make_env: Make) -> None:
    env = make_env(observations=("rgb", "cam2world", "depth"))
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    obs, _ = env.reset(seed=0, options={"image": image})
    np.testing.assert_allclose(obs["cam2world"][:3, 3], [0.0, 0.0, 1.4])
    depth = np.full((SIZE, SIZE), 3.0)
    depth[0, 0] = np.nan
    lens = np.array([[40.0, 0.0, 16.0], [0.0, 40.0, 16.0], [0.0, 0.0, 1.0]])
    obs, info = env.reset(seed=0, options={"image": image, "depth": depth, "intrinsics": lens})
    np.testing.assert_allclose(obs["depth"], 3.0)
    np.testing.assert_allclose(info["intrinsics"], lens)
    assert env.step(np.zeros(5, np.float32))[4]["coverage"] > 0.5


def test_saved_world_goes_on_as_it_would_have(make_env: Make, tmp_path: Path) -> None:
    env = make_env(observations=OBSERVATIONS)
    env.reset(seed=6)
    last = walk(env)[-1][0]
    env.save_world(tmp_path / "place")
    expected = walk(env, seed=8)
    for options in ({"world": tmp_path / "place"}, {"world": str(tmp_path / "place")}):
        other = make_env(observations=OBSERVATIONS)
        opened, info = other.reset(options=options)
        assert same(opened, last)
        assert info["seed"] == 6
        assert all(
            same(a[0], b[0]) and a[1] == b[1] for a, b in zip(walk(other, seed=8), expected, strict=True)
        )
    opened, _ = env.load_world(tmp_path / "place")
    assert same(opened, last)
    back, _ = env.reset(options={"keep_world": True})
    assert same(back["cam2world"], make_env().reset(seed=6)[0]["cam2world"])


def test_forks_copies_and_pickles_go_on_alike_and_apart(make_env: Make) -> None:
    env = make_env(observations=OBSERVATIONS)
    env.reset(seed=6)
    walk(env)
    others = [env.fork(), copy.deepcopy(env), pickle.loads(pickle.dumps(env))]  # noqa: S301 (its own)
    expected = walk(env, seed=8)
    fresh = env.reset()[0]
    for other in others:
        assert all(same(a[0], b[0]) for a, b in zip(walk(other, seed=8), expected, strict=True))
        assert same(other.reset()[0], fresh)
    assert env.fork().core.model is env.core.model


def test_one_model_for_all_environments_of_a_process(model_folder: Path, tmp_path: Path) -> None:
    first, second = (ExploreEnv(world_model=str(model_folder)) for _ in range(2))
    assert first.core.model is second.core.model
    assert pickle.loads(pickle.dumps(first)).core.model is first.core.model  # noqa: S301 (its own)
    assert len(pickle.dumps(first)) < 200_000, "the weights are in the pickle"


def test_under_wrappers(make_env: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips: list[Any] = []

    class Clip:
        def __init__(self, frames: list[np.ndarray], fps: float) -> None:
            clips.append((len(frames), frames[0].shape, fps))

        def write_videofile(self, path: str, logger: Any) -> None: ...

    for name in ("moviepy", "moviepy.video", "moviepy.video.io", "moviepy.video.io.ImageSequenceClip"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["moviepy.video.io.ImageSequenceClip"].ImageSequenceClip = Clip
    env = RecordVideo(TimeLimit(make_env(render_mode="rgb_array"), 2), str(tmp_path), episode_trigger=bool)
    for _ in range(2):
        env.reset(seed=0)
        assert [step[3] for step in walk(env, 2)] == [False, True]
    env.close()
    assert clips == [(3, (SIZE, SIZE, 3), 15)]


def test_under_the_recorder(make_env: Make, tmp_path: Path) -> None:
    with RecordHDF5(TimeLimit(make_env(), 3), tmp_path / "walk.hdf5") as env:
        obs, _ = env.reset(seed=11)
        steps = walk(env, 3)
    episode = HDF5Reader(tmp_path / "walk.hdf5")[0]
    assert np.array_equal(episode.obs["rgb"][0], obs["rgb"])
    np.testing.assert_allclose(episode.rewards, [step[1] for step in steps])


def test_before_the_first_reset(make_env: Make, tmp_path: Path) -> None:
    env = make_env(render_mode="rgb_array")
    for call in (
        lambda: env.step(np.zeros(5, np.float32)),
        env.render,
        lambda: env.save_world(tmp_path / "none"),
        lambda: env.reset(options={"keep_world": True}),
    ):
        with pytest.raises(StateError, match="reset"):
            call()
    assert not (tmp_path / "none").exists()
    with pytest.raises(FileFormatError):
        env.load_world(tmp_path / "none")
    env.close()
    env.close()
