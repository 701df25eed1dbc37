"""What a program sets of torch's process-wide state reaches no result, and nothing of it is changed."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

import mirage_sim
from mirage_sim.checkpoints import load_world_model
from mirage_sim.envs import ExploreEnv, ExploreEnvV1, ExploreVectorEnv
from mirage_sim.errors import StateError
from mirage_sim.geometry import from_yaw_pitch, make_intrinsics
from mirage_sim.model.world_model import WorldModel
from mirage_sim.torch_state import own_torch_state
from mirage_sim.world import World
from tests.models import save_tiny_world_model, tiny_world_model

State = Callable[[], AbstractContextManager[object]]


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def default_device(name: str) -> Iterator[None]:
    torch.set_default_device(name)
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def deterministic() -> Iterator[None]:
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


STATES: dict[str, State] = {
    "inference mode": torch.inference_mode,
    "grad mode": torch.enable_grad,
    "no grad": torch.no_grad,
    "float64": lambda: default_dtype(torch.float64),
    "bfloat16": lambda: default_dtype(torch.bfloat16),
    "default device": lambda: default_device("meta"),
    "device context": lambda: torch.device("meta"),
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "deterministic algorithms": deterministic,
}


def read_state() -> tuple[object, ...]:
    return (
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_autocast_enabled("cpu"),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.random.get_rng_state().tolist() if torch.get_default_device().type == "cpu" else None,
    )


@pytest.fixture(scope="module")
def model() -> WorldModel:
    return tiny_world_model(references=1)


IMAGE = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
DEPTH = np.full((2, 32, 32), 2.0, np.float32)
STARTS = from_yaw_pitch(torch.tensor([[0.0, 0.0, 1.4], [1.0, 0.0, 1.4]]), torch.tensor([0.0, 0.3])).float()
TURNED = from_yaw_pitch(torch.tensor([[0.1, 0.0, 1.4], [1.0, 0.2, 1.4]]), torch.tensor([0.2, 0.1])).float()


def begin(model: WorldModel) -> World:
    world = World(model, 2)
    world.reset(IMAGE, STARTS, seeds=[3, 4], depth=DEPTH)
    return world


def digest(world: World) -> list[bytes]:
    """Two steps further, with a fork and a restart between them, everything that can be seen, as bytes."""
    first = world.step(TURNED[:, None])
    forked = world.fork([1, 0])
    world.restart(STARTS)
    second = forked.step(STARTS[:, None])
    seen = [part for chunk in (first, second) for part in (chunk.latents, chunk.depth, chunk.new_area)]
    return [part.numpy().tobytes() for part in seen] + [second.frames.tobytes()]  # type: ignore[union-attr]


@pytest.mark.parametrize("state", STATES)
def test_a_world_gives_the_same_bytes_in_any_state(model: WorldModel, state: str) -> None:
    expected = digest(begin(model))
    with STATES[state]():
        before = read_state()
        found = digest(begin(model))
        assert read_state() == before
    assert found == expected


@pytest.mark.parametrize("state", STATES)
def test_a_world_begun_in_a_state_goes_on_outside_it_and_back(model: WorldModel, state: str) -> None:
    expected = digest(begin(model))
    with STATES[state]():
        world = begin(model)
    assert digest(world) == expected
    with STATES[state]():
        world.reset(IMAGE, STARTS, seeds=[3, 4], depth=DEPTH)
    assert digest(world) == expected


@pytest.mark.parametrize("state", STATES)
def test_a_saved_world_opens_in_any_state(model: WorldModel, state: str, tmp_path: Path) -> None:
    world = begin(model)
    with STATES[state]():
        world.save(tmp_path / "inside", 1)
    world.save(tmp_path / "outside", 1)
    files = [
        sorted(path.read_bytes() for path in (tmp_path / name).iterdir()) for name in ("inside", "outside")
    ]
    assert files[0] == files[1]
    other = World(model, 2)
    with STATES[state]():
        other.load(tmp_path / "outside", 0)
        other.load(tmp_path / "outside", 1)
    assert torch.equal(other.cam2world, STARTS[[1, 1]])
    other.step(TURNED[:, None])


@pytest.mark.parametrize("state", STATES)
def test_a_model_loads_alike_in_any_state(state: str, tmp_path: Path) -> None:
    folder = save_tiny_world_model(tmp_path / "model")
    expected = load_world_model(folder, dtype=torch.float32).state_dict()
    with STATES[state]():
        before = read_state()
        loaded = load_world_model(folder, dtype=torch.float32)
        assert read_state() == before
    for name, weight in loaded.state_dict().items():
        assert weight.dtype == expected[name].dtype
        assert not weight.is_inference()
        assert torch.equal(weight, expected[name]), name


def test_a_reset_that_failed_leaves_the_worlds_as_they_were(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, world = digest(begin(model)), begin(model)
    with monkeypatch.context() as patch:
        patch.setattr(type(model.codec), "decode", fail)
        with pytest.raises(RuntimeError, match="no memory left"):
            world.reset(IMAGE[::-1].copy(), TURNED, seeds=[8, 9])
        with pytest.raises(RuntimeError, match="no memory left"):
            world.restart(TURNED)
    assert world.seeds == [3, 4]
    assert torch.equal(world.cam2world, STARTS)
    assert digest(world) == expected


def fail(*_: object) -> None:
    raise RuntimeError("no memory left")


@pytest.mark.parametrize("state", ["float64", "bfloat16", "device context"])
def test_geometry_makes_float32_on_the_cpu(state: str) -> None:
    expected = make_intrinsics(96, 128, 75.0)
    with STATES[state]():
        found = make_intrinsics(96, 128, 75.0)
        assert found.dtype == torch.float32
        assert found.device.type == "cpu"
        assert found.tolist() == expected.tolist()


def test_an_error_puts_the_state_back() -> None:
    with default_dtype(torch.float64):
        before = read_state()
        with pytest.raises(RuntimeError, match="no memory left"):
            fail_inside()
        assert read_state() == before


def fail_inside() -> None:
    with own_torch_state(threads=2):
        assert torch.get_num_threads() == 2
        assert torch.get_default_dtype() == torch.float32
        fail()


_NAMES = (
    "zeros",
    "ones",
    "empty",
    "full",
    "eye",
    "linspace",
    "rand",
    "randn",
    "arange",
    "randperm",
    "tensor",
)
FACTORIES = {f"torch.{name}" for name in _NAMES}
WEIGHTS = {"nn.Parameter", "self.register_buffer"}  # made where the whole network is made
EXEMPT = ("training", "evaluation")  # run by our own commands only


def test_every_new_tensor_names_its_dtype_and_device() -> None:
    package = Path(mirage_sim.__file__).parent
    folders = [folder for folder in package.iterdir() if folder.is_dir() and folder.name not in EXEMPT]
    assert {"envs", "agents", "world"} <= {folder.name for folder in folders}
    lacking = []
    for path in [path for folder in folders for path in folder.glob("*.py")]:
        tree = ast.parse(path.read_text())
        weights = {inner for node in ast.walk(tree) if called(node) in WEIGHTS for inner in ast.walk(node)}
        for node in ast.walk(tree):
            if called(node) not in FACTORIES or node in weights:
                continue
            assert isinstance(node, ast.Call)
            if not {"dtype", "device"} <= {keyword.arg for keyword in node.keywords}:
                lacking.append(f"{path.relative_to(package)}:{node.lineno}")
    assert lacking == []


def called(node: ast.AST) -> str:
    """Name of what is called, with what it belongs to; nothing for what is no call."""
    return ast.unparse(node.func) if isinstance(node, ast.Call) else ""


@pytest.mark.parametrize("state", STATES)
def test_an_environment_made_in_a_state_works_outside_it(model: WorldModel, state: str) -> None:
    def walk(env: ExploreEnv) -> list[bytes]:
        image = {"image": IMAGE[0], "depth": DEPTH[0]}
        seen = [env.reset(seed=1, options=image)[0], env.step(np.full(5, 0.5, np.float32))[0]]
        return [observation["rgb"].tobytes() for observation in seen]

    expected = walk(ExploreEnvV1(world_model=model))
    with STATES[state]():
        made, vector = ExploreEnvV1(world_model=model), ExploreVectorEnv(2, world_model=model)
    assert walk(made) == expected
    with STATES[state]():
        assert walk(made) == expected
    vector.reset(seed=1, options={"image": IMAGE[0], "depth": DEPTH[0]})
    vector.step(np.zeros((2, 5), np.float32))


def test_a_step_that_breaks_off_while_writing_asks_for_a_reset(
    model: WorldModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected, world = digest(begin(model)), begin(model)
    with monkeypatch.context() as patch:
        patch.setattr(type(world.memory), "write", fail)
        with pytest.raises(RuntimeError, match="no memory left"):
            world.step(TURNED[:, None], worlds=torch.tensor([False, True]))
    with pytest.raises(StateError, match="call reset first"):
        world.step(TURNED[:, None])
    world.step(TURNED[:, None], worlds=torch.tensor([True, False]))
    world.reset(IMAGE, STARTS, seeds=[3, 4], depth=DEPTH)
    assert digest(world) == expected
