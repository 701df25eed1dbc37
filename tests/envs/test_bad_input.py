from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mirage_sim.envs import ExploreEnv, ExploreVectorEnv
from mirage_sim.errors import FileFormatError, InputError, InputTypeError, MirageError, StateError
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.model.config import CONFIG_FILE, WEIGHTS_FILE
from mirage_sim.model.world_model import WorldModel
from tests.envs.conftest import SIZE, same
from tests.models import save_tiny_world_model

IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)
POSE = from_yaw_pitch((0.0, 0.0, 1.0), 0.0).numpy()
LENS = np.array([[20.0, 0.0, 16.0], [0.0, 20.0, 16.0], [0.0, 0.0, 1.0]])


@pytest.mark.parametrize(
    ("arguments", "kind", "said"),
    [
        ({"action_mode": "fly"}, InputError, "action_mode must be one of .* got 'fly'"),
        ({"observations": "rgb"}, InputTypeError, "observations must be a sequence"),
        ({"observations": ()}, InputError, "observations must be some of"),
        ({"observations": ("rgb", "rgb")}, InputError, "each once"),
        ({"observations": ("rgb", "smell")}, InputError, "smell"),
        ({"observations": (["rgb"],)}, InputError, "observations must be some of"),
        ({"world_model": "embeded"}, FileFormatError, 'world_model must be .*did you mean "embedded"'),
        ({"memory": 1}, InputTypeError, "memory must be True or False, got 1"),
        ({"memory": False, "collide": True}, InputError, "collide must be False"),
        ({"render_mode": "ansi"}, InputError, "render_mode must be None or one of"),
        ({"world_model": 3}, InputTypeError, "world_model must be a name"),
        ({"device": "abacus"}, InputError, "device must be"),
        ({"world_model": "nowhere"}, FileFormatError, "nowhere"),
    ],
)
def test_arguments(model_folder: Path, arguments: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        ExploreEnv(**{"world_model": str(model_folder), **arguments})


def test_a_window_needs_a_display(model: WorldModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "linux")
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(StateError, match=r'"human" must have a display .* use "rgb_array"'):
        ExploreEnv(world_model=model, render_mode="human")
    assert ExploreEnv(world_model=model).metadata["render_modes"] == ["rgb_array"]
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setenv("MPLBACKEND", "agg")
    import matplotlib.pyplot as plt

    plt.switch_backend("agg")
    env = ExploreEnv(world_model=model, render_mode="human")
    with pytest.raises(StateError, match="backend that opens windows, got 'agg'"):
        env.reset(seed=0, options={"image": IMAGE})
    env.close()


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        ({"keep_wolrd": True}, InputError, "keep_wolrd"),
        ([1], InputTypeError, "options must be a dict, got list"),
        ({"keep_world": "yes"}, InputTypeError, "keep_world"),
        ({"keep_world": True, "scene_seed": 3}, InputError, "one way to start"),
        ({"depth": np.ones((SIZE, SIZE))}, InputError, "'depth'"),
        ({"image": IMAGE.astype(np.float32)}, InputTypeError, "uint8 array, got dtype float32"),
        ({"image": IMAGE[:-1]}, InputError, r"'image'.* must be .*32, 32, 3\], got \[31, 32, 3\]"),
        ({"image": IMAGE[None]}, InputError, "'image'"),
        ({"image": IMAGE, "depth": np.zeros((SIZE, SIZE))}, InputError, "at least one pixel"),
        ({"image": IMAGE, "depth": -np.ones((SIZE, SIZE))}, InputError, "negative"),
        ({"image": IMAGE, "depth": np.ones((4, 4))}, InputError, r"'depth'.* got \[4, 4\]"),
        ({"image": IMAGE, "depth": np.ones((SIZE, SIZE), int)}, InputError, "floating dtype"),
        ({"image": IMAGE, "cam2world": 2 * POSE}, InputError, "'cam2world'"),
        ({"image": IMAGE, "cam2world": POSE * np.nan}, InputError, "finite"),
        ({"image": IMAGE, "cam2world": POSE[None]}, InputError, "'cam2world'"),
        ({"image": IMAGE, "cam2world": np.diag([1.0, 1.0, -1.0, 1.0])}, InputError, "determinant"),
        ({"image": IMAGE, "intrinsics": -LENS}, InputError, "positive focal"),
        ({"image": IMAGE, "intrinsics": LENS[:2]}, InputError, "'intrinsics'"),
        ({"scene_seed": 1.5}, InputTypeError, "scene_seed"),
        ({"scene_seed": -1}, InputError, "at least 0, got -1"),
        ({"world": 3}, InputTypeError, "'world'"),
        ({"world": "nowhere"}, FileFormatError, "nowhere"),
        ({"world": "nowhere", "cam2world": POSE}, InputError, "'cam2world'"),
    ],
)
def test_reset_options_change_nothing_when_they_are_bad(
    make_env: Callable[..., ExploreEnv], options: Any, kind: type[Exception], said: str
) -> None:
    env = make_env()
    env.reset(seed=1)
    before = env.np_random.bit_generator.state
    twin = env.fork()
    with pytest.raises(kind, match=said) as caught:
        env.reset(seed=2, options=options)
    assert isinstance(caught.value, MirageError)
    assert env.np_random.bit_generator.state == before
    assert env.np_random_seed == 1
    move = np.full(5, 0.5, np.float32)
    assert same(env.step(move)[0], twin.step(move)[0])


def test_bad_actions_change_nothing(make_env: Callable[..., ExploreEnv]) -> None:
    env = make_env()
    env.reset(seed=1)
    twin = env.fork()
    with pytest.raises(InputError, match="action must be finite"):
        env.step(np.full(5, np.nan, np.float32))
    move = np.full(5, 0.5, np.float32)
    assert same(env.step(move)[0], twin.step(move)[0])


def test_weights_that_were_tampered_with(tmp_path: Path) -> None:
    folder = save_tiny_world_model(tmp_path / "model", height=SIZE, width=SIZE)
    ExploreEnv(world_model=folder)
    weights = folder / WEIGHTS_FILE
    whole = weights.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        weights.write_bytes(damaged)
        with pytest.raises(FileFormatError, match="sha256"):
            ExploreEnv(world_model=folder)
    weights.unlink()
    with pytest.raises(FileFormatError, match=WEIGHTS_FILE):
        ExploreEnv(world_model=folder)
    weights.write_bytes(whole)
    (folder / CONFIG_FILE).write_text("{")
    with pytest.raises(FileFormatError, match="JSON"):
        ExploreEnv(world_model=folder)


def test_a_saved_world_of_another_model(make_env: Callable[..., ExploreEnv], tmp_path: Path) -> None:
    other = ExploreEnv(world_model=save_tiny_world_model(tmp_path / "model", height=SIZE, width=SIZE, seed=1))
    other.reset(seed=0, options={"image": IMAGE})
    other.save_world(tmp_path / "place")
    env = make_env()
    first, _ = env.reset(seed=1)
    twin = env.fork()
    with pytest.raises(FileFormatError, match="model"):
        env.load_world(tmp_path / "place")
    move = np.full(5, 0.5, np.float32)
    assert same(env.step(move)[0], twin.step(move)[0])
    assert first["rgb"].any()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"num_envs": 0}, "num_envs"),
        ({"num_envs": 2.0}, "num_envs"),
        ({"max_episode_steps": 0}, "max_episode_steps"),
        ({"autoreset_mode": "later"}, "autoreset_mode"),
    ],
)
def test_vector_arguments(model: WorldModel, arguments: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ExploreVectorEnv(**{"num_envs": 2, "world_model": model, **arguments})


@pytest.mark.parametrize(
    ("seed", "options", "kind", "said"),
    [
        ([1], None, InputError, "seed must hold 2 numbers, got 1"),
        (None, {"reset_mask": [True, False]}, InputTypeError, "reset_mask"),
        (None, {"reset_mask": np.array([1, 0])}, InputTypeError, "reset_mask"),
        (None, {"reset_mask": np.array([True])}, InputError, "reset_mask"),
        (None, {"reset_mask": np.array([False, False])}, InputError, "at least one"),
        (None, {"other": 1}, InputError, "other"),
    ],
)
def test_vector_resets(
    make_vector: Callable[..., ExploreVectorEnv], seed: Any, options: Any, kind: type[Exception], said: str
) -> None:
    with pytest.raises(kind, match=said):
        make_vector(2).reset(seed=seed, options=options)


def test_a_model_elsewhere_than_asked(model: WorldModel) -> None:
    with pytest.raises(InputError, match="device must be the model's own, cpu, got 'cuda'"):
        ExploreEnv(world_model=model, device="cuda")
    assert torch.device("cpu") == model.device
