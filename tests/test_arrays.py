"""Arrays at the border: what users hand over is copied to our own kind, or an error of ours says why not."""

from __future__ import annotations

import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from mirage_sim.agents import present_pose
from mirage_sim.agents.plans import plan_waypoints
from mirage_sim.arrays import check_tensor, own_array, own_floats
from mirage_sim.envs.actions import make_actions
from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.geometry import (
    a_b_c_a,
    check_depth,
    check_intrinsics,
    check_pose,
    compose,
    from_yaw_pitch,
    interpolate_poses,
    make_intrinsics,
    orbit,
    rescale_intrinsics,
    unproject,
    waypoints,
)
from mirage_sim.model.images import check_image, frames_to_tensor
from mirage_sim.sources.clip import upright
from mirage_sim.world import World
from tests.models import tiny_world_model

Array = np.ndarray[Any, Any]
SIZE = 32
POSE = from_yaw_pitch((0.5, -0.25, 1.5), 0.0).numpy()
LENS = make_intrinsics(SIZE, SIZE, 90.0).numpy()
DEPTH = np.full((SIZE, SIZE), 2.0, np.float32)
DEPTH[:4] = 3.0
IMAGE = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)


def read_only(array: Array) -> Array:
    array = array.copy()
    array.flags.writeable = False
    return array


SAME: dict[str, Callable[[Array], Any]] = {
    "read-only": read_only,
    "big-endian": lambda a: a.astype(a.dtype.newbyteorder(">")),
    "reversed": lambda a: a[::-1].copy()[::-1],
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "of Fortran": lambda a: a.copy(order="F"),
    "masked nowhere": lambda a: np.ma.masked_array(a.copy(), mask=np.zeros(a.shape, bool)),
    "tensor": lambda a: torch.from_numpy(a.copy()),
}
"""Ways to hand over the same numbers."""
FLOATS: dict[str, Callable[[Array], Any]] = SAME | {
    "float64": lambda a: a.astype(np.float64),
    "float16": lambda a: a.astype(np.float16),
    "long double": lambda a: a.astype(np.longdouble),
    "bfloat16": lambda a: torch.from_numpy(a.copy()).bfloat16(),
    "float64 tensor": lambda a: torch.from_numpy(a.copy()).double(),
    "with gradients": lambda a: torch.from_numpy(a.copy()).requires_grad_(),
    "transposed tensor": lambda a: torch.from_numpy(a.copy()).mT.contiguous().mT if a.ndim > 1 else a,
    "negated": lambda a: torch._neg_view(torch.from_numpy(-a)),
    "of inference": lambda a: torch.inference_mode()(lambda: torch.from_numpy(a.copy()) * 1)(),
}
"""The same for numbers that all these types hold exactly."""
NOT_FLOATS: dict[str, Callable[[Array], Any]] = {
    "list": lambda a: a.tolist(),
    "integers": lambda a: a.astype(np.int64),
    "integer tensor": lambda a: torch.from_numpy(a).long(),
    "text": lambda a: a.astype(str),
    "objects": lambda a: a.astype(object),
    "complex": lambda a: a.astype(np.complex64),
    "complex tensor": lambda a: torch.from_numpy(a).to(torch.complex64),
    "sparse": lambda a: torch.from_numpy(a).to_sparse(),
    "on meta": lambda a: torch.empty(a.shape, device="meta"),
    "masked": lambda a: np.ma.masked_array(a, mask=a == a.max()),
    "None": lambda a: None,
}


@pytest.fixture(autouse=True)
def _no_warnings() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture(scope="module")
def world() -> World:
    world = World(tiny_world_model(SIZE, SIZE))
    world.reset(IMAGE[None], POSE[None])
    return world


@pytest.mark.parametrize("form", FLOATS)
def test_numbers_are_copied(form: str) -> None:
    for values in (POSE, DEPTH, np.array(0.5, np.float32)):
        given = FLOATS[form](values) if values.ndim else values.astype(">f4")
        array, tensor = own_array("x", given), own_floats("x", given, torch.float32)
        assert array.dtype.isnative
        assert array.flags.writeable
        assert array.flags.c_contiguous
        assert type(array) is np.ndarray
        assert tensor.is_contiguous()
        assert not tensor.requires_grad
        np.testing.assert_array_equal(array, values)
        np.testing.assert_array_equal(tensor.numpy(), values)
        array[...], before = -1.0, own_array("x", given)
        tensor[...] = -1.0
        np.testing.assert_array_equal(before, values)


def test_other_numbers_keep_their_dtype() -> None:
    for dtype in (np.bool_, np.uint8, np.int32, np.uint64, np.float16):
        assert own_array("x", np.ones(3, dtype)).dtype == dtype
        assert own_array("x", np.ones(3, np.dtype(dtype).newbyteorder(">"))).dtype == dtype
    assert own_array("x", [1, 2]).dtype == np.int64
    assert own_floats("x", torch.ones(2, dtype=torch.bfloat16)).dtype == torch.bfloat16
    eight = torch.ones(2).to(torch.float8_e4m3fn)
    assert own_floats("x", eight).dtype == torch.float32
    assert own_array("x", eight).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("form", NOT_FLOATS)
def test_everything_else_is_refused_by_name(form: str) -> None:
    for check, values in ((check_pose, POSE), (check_intrinsics, LENS), (check_depth, DEPTH)):
        with pytest.raises((InputError, InputTypeError), match=r"given must (be a|have)"):
            check("given", NOT_FLOATS[form](values))
    if form not in ("list", "integers", "integer tensor"):
        with pytest.raises((InputError, InputTypeError), match=r"given must (be an? |have no masked)"):
            own_array("given", NOT_FLOATS[form](POSE))


@pytest.mark.parametrize("form", FLOATS)
def test_the_geometry_takes_them(form: str) -> None:
    change = FLOATS[form]
    for check, values in ((check_pose, POSE), (check_intrinsics, LENS), (check_depth, DEPTH)):
        assert np.array_equal(check("x", change(values)).float().numpy(), values)
    start, point = change(POSE), change(np.array([0.5, -0.25, 1.5], np.float32))
    assert torch.allclose(orbit(start, 0.5, 10.0, 2)[0].float(), torch.from_numpy(POSE))
    assert a_b_c_a(start, start, start, 1).shape == (4, 4, 4)
    assert waypoints(change(np.array([[0, 0, 1], [1, 0, 1]], np.float32))).shape[-2:] == (4, 4)
    assert np.allclose(from_yaw_pitch(point, 0.0).detach().float().numpy(), POSE)
    times = change(np.array([0.0, 1.0], np.float32))
    assert interpolate_poses(torch.from_numpy(POSE).expand(2, 4, 4), times, [0.5]).shape == (1, 4, 4)


def test_pure_functions_name_what_is_no_tensor() -> None:
    pose, lens = torch.from_numpy(POSE), torch.from_numpy(LENS)
    with pytest.raises(InputTypeError, match="second must be a tensor, got ndarray"):
        compose(pose, POSE)  # type: ignore[arg-type]
    with pytest.raises(InputTypeError, match="cam2world must be a tensor, got list"):
        unproject(torch.from_numpy(DEPTH), POSE.tolist(), lens)  # type: ignore[arg-type]
    # Half a pixel of a whole number would be nothing.
    with pytest.raises(InputError, match=r"intrinsics must have a floating dtype, got torch\.int64"):
        rescale_intrinsics(lens.long(), 0.5)
    with pytest.raises(InputError, match=r"x must be \[3\], got \[2\]"):
        check_tensor("x", torch.ones(2), [3])


@pytest.mark.parametrize("form", FLOATS)
def test_worlds_take_them_and_keep_nothing_of_them(world: World, form: str) -> None:
    change = FLOATS[form]
    plain = world.reset(IMAGE[None], POSE[None], LENS, depth=DEPTH[None])
    pose, lens, depth = change(POSE[None]), change(LENS), change(DEPTH[None])
    image = SAME.get(form, read_only)(IMAGE)
    again = world.reset(image[None], pose, lens, depth=depth)
    assert torch.equal(again.latents, plain.latents)
    first = world.step(change(POSE[None, None]))
    for given in (pose, lens, depth):
        if isinstance(given, np.ndarray) and given.flags.writeable:
            given[...] = 0
    assert torch.equal(world.restart(change(POSE[None])).cam2world, first.cam2world)
    assert np.array_equal(world.intrinsics[0].numpy(), LENS)


@pytest.mark.parametrize("form", NOT_FLOATS)
def test_worlds_refuse_the_rest_and_stay_as_they_are(world: World, form: str) -> None:
    change = NOT_FLOATS[form]
    world.reset(IMAGE[None], POSE[None])
    before = world.snapshot().context
    calls: list[tuple[str, Callable[[], object]]] = [
        ("cam2world", lambda: world.reset(IMAGE[None], change(POSE[None]))),
        ("cam2world", lambda: world.step(change(POSE[None, None]))),
        ("cam2world", lambda: world.restart(change(POSE[None]))),
    ]
    if form != "None":
        calls += [
            ("intrinsics", lambda: world.reset(IMAGE[None], POSE[None], change(LENS))),
            ("depth", lambda: world.reset(IMAGE[None], POSE[None], depth=change(DEPTH[None]))),
        ]
    for name, call in calls:
        with pytest.raises((InputError, InputTypeError), match=f"^{name} must"):
            call()
    after = world.snapshot().context
    assert all(torch.equal(value, getattr(after, name)) for name, value in vars(before).items())


def test_numbers_beyond_float32_are_not_finite(world: World) -> None:
    far = POSE.astype(np.float64)
    far[0, 3] = 1e39
    for call in (
        lambda: world.reset(IMAGE[None], far[None]),
        lambda: world.step(far[None, None]),
        lambda: world.restart(far[None]),
        lambda: waypoints(np.array([[0.0, 0.0, 0.0], [1e39, 0.0, 0.0]])),
    ):
        with pytest.raises(InputError, match="must be finite"):
            call()


def test_masks_of_worlds_may_be_lists_and_arrays(world: World) -> None:
    for mask in ([True], (True,), np.array([True]), read_only(np.array([True])), torch.tensor([True])):
        world.reset(IMAGE[None], POSE[None], worlds=mask)
    for mask, said in (([1], "worlds must be bool"), ([True, False], r"worlds must be \[1\]")):
        with pytest.raises(InputError, match=said):
            world.step(POSE[None, None], worlds=mask)
    with pytest.raises(InputTypeError, match="worlds must be an array of numbers, got dtype <U3"):
        world.step(POSE[None, None], worlds=["all"])  # type: ignore[list-item]


@pytest.mark.parametrize("mode", ["relative", "pose"])
@pytest.mark.parametrize("form", [*FLOATS, "list", "list of tensors"])
def test_actions(mode: str, form: str) -> None:
    plain = np.array(
        [0.5, 0.0, -0.25, 1.0, 0.0] if mode == "relative" else [0.5, 0, 1.5, 1, 0, 0, 0], np.float32
    )
    given: Any = plain.tolist()
    if form == "list of tensors":
        given = [torch.tensor(value, dtype=torch.bfloat16, requires_grad=True) for value in given]
    elif form != "list":
        given = FLOATS[form](plain)
    parsed = make_actions(mode).parse("action", given, ())
    assert (parsed.dtype, parsed.tolist()) == (np.float32, [plain.tolist()])


@pytest.mark.parametrize(
    "form", ["complex", "complex tensor", "sparse", "on meta", "masked", "text", "objects"]
)
def test_actions_that_are_no_numbers(form: str) -> None:
    with pytest.raises((InputError, InputTypeError), match=r"^action must"):
        make_actions("relative").parse(
            "action", NOT_FLOATS[form](np.array([1.0, 0, 0, 0, 0], np.float32)), ()
        )
    with pytest.raises(InputError, match=r"action must be in \[-1, 1\] at 0, got 1e\+300"):
        make_actions("relative").parse("action", np.array([1e300, 0, 0, 0, 0]), ())


@pytest.mark.parametrize("form", SAME)
def test_images(form: str) -> None:
    given = SAME[form](IMAGE)
    own = check_image("image", given)
    assert np.array_equal(own, IMAGE)
    assert not np.shares_memory(own, np.asarray(given))
    assert torch.equal(frames_to_tensor(given), frames_to_tensor(IMAGE))


def test_images_of_another_kind() -> None:
    for image in (IMAGE.astype(np.int16), torch.zeros(4, 4, 3), IMAGE.tolist(), None):
        with pytest.raises(InputTypeError, match="image must be a uint8 array, got"):
            check_image("image", image)  # type: ignore[arg-type]


@pytest.mark.parametrize("form", FLOATS)
def test_agents_and_sources(form: str) -> None:
    pose = FLOATS[form](POSE)
    assert np.array_equal(present_pose({"cam2world": pose}, {}).numpy(), POSE)
    corners = FLOATS[form](np.array([[0.5, 0.0], [0.5, 0.5]], np.float32))
    assert plan_waypoints(torch.from_numpy(POSE), 1, corners).shape[-2:] == (4, 4)
    turned = upright(FLOATS[form](np.stack([POSE, POSE])))
    np.testing.assert_allclose(turned[0, :3, 1], [0.0, 0.0, -1.0], atol=1e-6)


def test_copying_arrays_needs_no_torch() -> None:
    program = (
        "import sys, numpy as np, mirage_sim.recording\nfrom mirage_sim.arrays import own_array\n"
        "own_array('x', np.ones(3, '>f4')[::-1])\nassert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
