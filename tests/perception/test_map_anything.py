"""MapAnything: a stand-in of its package, everywhere; its own class, tiny, where the package is installed."""

import builtins
import json
import socket
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mirage_sim.errors import FileFormatError, InputError, MissingExtraError
from mirage_sim.geometry import make_intrinsics, pixel_centres
from mirage_sim.perception import MapAnythingModel, holds_map_anything
from mirage_sim.perception.map_anything import _package
from tests.full_size import write_depth_estimator
from tests.map_anything import MEAN, STD, install_stand_in, write_real, write_stand_in
from tests.perception.test_models import pictures, seen

HW = (28, 56)
HALF = torch.tensor([[0.0, 0.0, 0.5], [0.0, 0.0, 0.5], [0.0, 0.0, 0.0]])
"""Between the corner of the first pixel, from which we count, and its middle, from which the package does."""


def lens(count: int = 1, hw: tuple[int, int] = HW) -> torch.Tensor:
    return make_intrinsics(*hw, 70.0).expand(count, 3, 3)


@pytest.fixture
def model(tmp_path, monkeypatch):
    install_stand_in(monkeypatch)
    return MapAnythingModel(write_stand_in(tmp_path), edge_ratio=1e9, longest=56)


@pytest.fixture
def real(tmp_path, monkeypatch):
    pytest.importorskip("mapanything.models")
    folder = write_real(tmp_path)

    def refuse(*_):
        raise AssertionError("nothing is fetched")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return MapAnythingModel(folder, edge_ratio=1e9, longest=56)


def test_depth_is_what_the_package_says_of_the_picture(model):
    frames = pictures(2)
    inverse, clear = model.say(frames, lens(2))
    red, _, blue = (0.5 * frames + 0.5).unbind(dim=1)
    torch.testing.assert_close(inverse, 1.0 / (1.0 + 4.0 * red))
    assert torch.equal(clear, blue < 0.9)
    assert not clear.all()


def test_pictures_and_camera_are_brought_to_the_size_of_training(tmp_path, monkeypatch):
    install_stand_in(monkeypatch)
    model = MapAnythingModel(write_stand_in(tmp_path))
    inverse, _ = model.say(pictures(1, (176, 320)), lens(1, (176, 320)))
    view = model._model.views[0]
    assert view["img"].shape[-2:] == (280, 518)
    assert inverse.shape == (1, 176, 320)
    side = lens(1, (176, 320))[0] * torch.tensor([[518 / 320], [280 / 176], [1.0]])
    torch.testing.assert_close(view["intrinsics"][0], side - HALF)


def test_depth_comes_at_the_scale_of_what_is_known(model):
    frames, nothing = pictures(2), torch.zeros(2, 7, 14)
    alone = model.estimate(seen(frames, nothing))
    some = torch.rand(2, 7, 14, generator=torch.Generator().manual_seed(0)) < 0.5
    aligned = model.estimate(seen(frames, torch.where(some, 1.7 * alone.depth, 0.0)))
    assert (alone.depth < 5.0).all()  # metres, without anything known
    torch.testing.assert_close(aligned.depth, 1.7 * alone.depth, rtol=1e-3, atol=0.0)


def test_cells_with_anything_unclear_are_surfaces_but_not_sure(model):
    frames = torch.full((1, 3, *HW), -1.0)
    frames[:, 2, 9, 10] = 1.0
    said = model.estimate(seen(frames, torch.zeros(1, 7, 14)))
    assert (~said.sure).nonzero().tolist() == [[0, 2, 2]]
    assert said.surface.all()


def test_what_is_no_depth_is_not_sure(model):
    model._model.span.data.fill_(-4.0)  # from 1 m at the left down to -3 m at the right
    frames = torch.full((1, 3, *HW), -1.0)
    frames[:, 0] = torch.linspace(-1.0, 1.0, HW[1])
    said = model.estimate(seen(frames, torch.zeros(1, 7, 14)))
    assert said.sure[0].all(dim=0).tolist() == [column < 3 for column in range(14)]
    assert said.depth.isfinite().all()
    model._model.span.data.fill_(torch.nan)
    assert not model.estimate(seen(pictures(1), torch.zeros(1, 7, 14))).sure.any()


def test_without_pictures(model):
    with pytest.raises(InputError, match=r"seen\.frames must be given"):
        model.estimate(seen(None, torch.zeros(1, 7, 14)))


def test_without_the_package(tmp_path, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *rest, **more):
        if name.startswith("mapanything"):
            raise ImportError("No module named 'mapanything'")
        return real_import(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtraError, match=r"depth must be .* needs mapanything.*got No module named"):
        MapAnythingModel(write_stand_in(tmp_path))


def test_which_folders_hold_one(tmp_path):
    assert holds_map_anything(write_stand_in(tmp_path / "one"))
    assert not holds_map_anything(write_depth_estimator(tmp_path / "other"))
    with pytest.raises(FileFormatError, match=r"config\.json must be a JSON file"):
        holds_map_anything(tmp_path)
    with pytest.raises(FileFormatError, match=r"must hold .*encoder_config.*got .*depth_estimation_type"):
        MapAnythingModel(tmp_path / "other")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data_norm_type": "radio"}, "data_norm_type 'dinov2' .*got 'radio'"),
        ({"adaptor_type": "pointmap+mask"}, r"adaptor_type with pose.*got .*'pointmap\+mask'"),
        ({"hub": "radio_v2.5-l"}, "must ask for DINOv2, got radio_v2.5-l .*: not fetched"),
    ],
)
def test_another_model_of_the_package(tmp_path, monkeypatch, changes, message):
    install_stand_in(monkeypatch)
    before = torch.hub.load
    with pytest.raises(FileFormatError, match=message):
        MapAnythingModel(write_stand_in(tmp_path, **changes))
    assert torch.hub.load is before


def damage(folder, change):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    if change == "missing":
        del tensors[first]
    elif change == "left over":
        tensors["more"] = torch.zeros(1)
    elif change == "mis-shaped":
        tensors[first] = torch.zeros(3, 5, 7)
    save_file(tensors, weights)
    if change == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])
    elif change == "gone":
        weights.unlink()
    elif change == "no name":
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({key: config[key] for key in config if key != "name"}))


CHANGES = ("missing", "left over", "mis-shaped", "truncated", "gone", "no name")


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_folder_is_refused(tmp_path, monkeypatch, change):
    install_stand_in(monkeypatch)
    damage(write_stand_in(tmp_path), change)
    with pytest.raises(FileFormatError, match="must hold a model for MapAnything, got"):
        MapAnythingModel(tmp_path)


def test_the_real_class_says_the_same_as_by_itself(real):
    frames = pictures(2)
    inverse, clear = real.say(frames, lens(2))
    normal = (0.5 * frames + 0.5 - MEAN) / STD
    view = {"img": normal, "data_norm_type": ["dinov2"], "intrinsics": lens(2) - HALF}
    plain = {"use_amp": False, "apply_mask": False, "mask_edges": False, "memory_efficient_inference": False}
    direct = real._model.infer([view], **plain)[0]
    torch.testing.assert_close(inverse, 1.0 / direct["depth_z"][..., 0].clamp(min=0.05), rtol=1e-4, atol=1e-5)
    assert torch.equal(clear, direct["non_ambiguous_mask"] & (direct["depth_z"][..., 0] > 0))
    assert clear.any()
    assert float(inverse.std()) > 0
    closer = real.say(frames, lens(2) * torch.tensor([[2.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 1.0, 1.0]]))
    assert not torch.equal(closer[0], inverse)  # the camera counts


def test_the_real_class_sees_the_rays_that_are_meant(real, monkeypatch):
    from mapanything.utils.geometry import get_rays_in_camera_frame

    views, infer = [], real._model.infer

    def listen(given, **more):
        views.extend(given)
        return infer(given, **more)

    monkeypatch.setattr(real._model, "infer", listen)
    real.say(pictures(1), lens())
    _, rays = get_rays_in_camera_frame(views[0]["intrinsics"], *HW, normalize_to_unit_sphere=False)
    fx, cx, cy = lens()[0, 0, 0], lens()[0, 0, 2], lens()[0, 1, 2]
    meant = (pixel_centres(*HW) - torch.stack([cx, cy])) / fx  # [H, W, 2]
    torch.testing.assert_close(rays[0, ..., :2], meant)


def test_the_real_class_takes_each_view_on_its_own(real):
    frames = pictures(3)
    together, _ = real.say(frames, lens(3))
    for view, inverse in zip(frames, together, strict=True):
        torch.testing.assert_close(real.say(view[None], lens())[0][0], inverse, rtol=1e-4, atol=1e-5)


def test_the_real_class_at_the_scale_of_what_is_known(real):
    frames = pictures(1)
    alone = real.estimate(seen(frames, torch.zeros(1, 7, 14)))
    aligned = real.estimate(seen(frames, 1.7 * alone.depth))
    torch.testing.assert_close(aligned.depth, 1.7 * alone.depth, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("change", CHANGES)
def test_a_damaged_folder_is_refused_by_the_real_class(real, tmp_path, change):
    damage(tmp_path, change)
    before = torch.hub.load
    with pytest.raises(FileFormatError, match="must hold a model for MapAnything, got"):
        MapAnythingModel(tmp_path)
    assert torch.hub.load is before


def test_importing_the_package_does_not_change_how_others_multiply(monkeypatch):
    pytest.importorskip("mapanything.models")
    for name in [name for name in sys.modules if name.startswith("mapanything")]:
        monkeypatch.delitem(sys.modules, name)
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = False
        _package(Path())
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
