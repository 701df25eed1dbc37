"""Depth models and segmenters: the real classes of transformers, tiny, with random weights."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    DepthAnythingForDepthEstimation,
    DPTConfig,
    DPTForDepthEstimation,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    SegformerForSemanticSegmentation,
    SwinConfig,
)

from mirage_sim.errors import FileFormatError, InputError, StateError
from mirage_sim.perception import DepthModel, Seen, SemanticSegmenter
from mirage_sim.perception.pictures import Preparation
from tests.full_size import LABELS, seeded, write_depth_estimator, write_processor, write_segmenter

MEAN = torch.tensor([0.485, 0.456, 0.406])[:, None, None]
STD = torch.tensor([0.229, 0.224, 0.225])[:, None, None]


def pictures(count: int, hw: tuple[int, int] = (28, 56), seed: int = 0) -> torch.Tensor:
    return 2.0 * torch.rand(count, 3, *hw, generator=torch.Generator().manual_seed(seed)) - 1.0


def seen(frames: torch.Tensor | None, known_depth: torch.Tensor) -> Seen:
    count, hw = len(known_depth), known_depth.shape[1:]
    lens = torch.eye(3).expand(count, 3, 3)
    zeros = torch.zeros(count, 4, *hw), torch.zeros(count, 6, *hw)
    return Seen(*zeros, known_depth, known_depth > 0, frames, lens)


@pytest.fixture(scope="module")
def metric(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_depth_estimator(tmp_path_factory.mktemp("depth") / "metric")


@pytest.fixture(scope="module")
def relative(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_depth_estimator(tmp_path_factory.mktemp("depth") / "relative", "relative")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_segmenter(tmp_path_factory.mktemp("segmenter") / "model")


def test_a_depth_model_says_what_its_network_says(metric):
    frames = pictures(2)
    network = DepthAnythingForDepthEstimation.from_pretrained(metric)
    with torch.no_grad():
        depth = network(pixel_values=(0.5 * frames + 0.5 - MEAN) / STD).predicted_depth
    torch.testing.assert_close(DepthModel(metric).inverse_depth(frames), 1.0 / depth.clamp(min=0.05))


def test_depth_comes_at_the_scale_of_what_is_known(metric):
    model, frames = DepthModel(metric, edge_ratio=1e9), pictures(2)
    alone = model.estimate(seen(frames, torch.zeros(2, 7, 14)))
    known = torch.where(torch.rand(2, 7, 14) < 0.5, 1.7 * alone.depth, 0.0)
    aligned = model.estimate(seen(frames, known))
    near = alone.surface & aligned.surface
    assert near.any()
    torch.testing.assert_close(aligned.depth[near], 1.7 * alone.depth[near], rtol=1e-3, atol=0.0)
    assert aligned.sure.all()


def test_cells_with_an_edge_in_them_are_not_sure(metric, monkeypatch):
    model = DepthModel(metric)
    inverse = torch.full((1, 28, 56), 0.5)
    inverse[..., 10:] = 0.25  # the third column of cells, 4 pixels wide, is half near and half far
    monkeypatch.setattr(model, "inverse_depth", lambda frames: inverse)
    said = model.estimate(seen(pictures(1), torch.zeros(1, 7, 14)))
    assert said.sure[0].all(dim=0).tolist() == [column != 2 for column in range(14)]
    assert set(said.depth.unique().tolist()) == {2.0, 4.0}  # nothing hangs between


def test_what_is_far_is_no_surface(metric, monkeypatch):
    model = DepthModel(metric, far=10.0)
    monkeypatch.setattr(model, "inverse_depth", lambda frames: torch.full((1, 28, 56), 0.05))
    assert not model.estimate(seen(pictures(1), torch.zeros(1, 7, 14))).surface.any()


def test_a_relative_model_needs_what_is_known(relative):
    model, frames = DepthModel(relative), pictures(1)
    with pytest.raises(StateError, match="remembered cells"):
        model.estimate(seen(frames, torch.zeros(1, 7, 14)))
    assert model.estimate(seen(frames, 2.0 + torch.rand(1, 7, 14))).depth.isfinite().all()


def test_dpt_is_a_relative_model(tmp_path):
    config = DPTConfig(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=28,
        patch_size=14,
        backbone_out_indices=[0, 1, 2, 3],
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
    )
    seeded(lambda: DPTForDepthEstimation(config)).save_pretrained(tmp_path)
    write_processor(tmp_path, 28, 14)
    model = DepthModel(tmp_path)
    assert not model.metric
    assert model.estimate(seen(pictures(1), 2.0 + torch.rand(1, 7, 14))).depth.isfinite().all()


def test_a_segmenter_says_what_its_network_says(segmenter):
    frames = pictures(2, (32, 32))
    network = SegformerForSemanticSegmentation.from_pretrained(segmenter)
    with torch.no_grad():
        scores = network(pixel_values=(0.5 * frames + 0.5 - MEAN) / STD).logits
    scores = torch.nn.functional.interpolate(scores, (32, 32), mode="bilinear")
    assert torch.equal(SemanticSegmenter(segmenter).classes(frames), scores.argmax(dim=1))


def test_cells_of_sky_and_of_what_may_move(segmenter, monkeypatch):
    model = SemanticSegmenter(segmenter)
    classes = torch.zeros(1, 8, 16, dtype=torch.long)
    classes[:, :4, :3] = 1  # three quarters of the first cell are sky
    classes[:, 7, 15] = 2  # one pixel of a person
    monkeypatch.setattr(model, "classes", lambda frames: classes)
    told = model.segment(pictures(1, (8, 16)), (2, 4))
    assert told.sky.nonzero().tolist() == [[0, 0, 0]]
    assert told.movable.nonzero().tolist() == [[0, 1, 3]]


def test_a_universal_model_gives_a_class_to_every_pixel(tmp_path):
    swin = SwinConfig(
        image_size=32,
        embed_dim=8,
        depths=[1] * 4,
        num_heads=[1] * 4,
        window_size=2,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    config = Mask2FormerConfig(
        backbone_config=swin,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=8,
        dim_feedforward=8,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        num_queries=4,
        id2label=LABELS,
    )
    seeded(lambda: Mask2FormerForUniversalSegmentation(config)).save_pretrained(tmp_path)
    write_processor(tmp_path, 32)
    classes = SemanticSegmenter(tmp_path).classes(pictures(2, (32, 64)))
    assert classes.shape == (2, 32, 64)
    assert set(classes.unique().tolist()) <= set(LABELS)


def test_sizes_keep_the_aspect_and_the_multiple(tmp_path):
    write_processor(tmp_path, 518, 14, keep=True)
    assert Preparation.read(tmp_path).sizes(704, 1280) == (518, 938)
    write_processor(tmp_path, 512)
    assert Preparation.read(tmp_path).sizes(704, 1280) == (512, 512)


def test_names_that_a_model_does_not_have(segmenter):
    with pytest.raises(InputError, match=r"movable must name classes of .*wall.*got \['dragon'\]"):
        SemanticSegmenter(segmenter, movable=["person", "dragon"])


def damage(folder: Path, change: str) -> None:
    """Spoil a copy of a model's folder."""
    weights, config = folder / "model.safetensors", folder / "config.json"
    tensors = load_file(weights)
    first = sorted(tensors)[0]
    if change == "missing":
        del tensors[first]
    elif change == "left over":
        tensors["more"] = torch.zeros(1)
    elif change == "mis-shaped":
        tensors[first] = torch.zeros(3, 3, 3)
    elif change == "another model":
        config.write_text(json.dumps(json.loads(config.read_text()) | {"model_type": "bert"}))
    elif change == "no size":
        (folder / "preprocessor_config.json").write_text("{}")
    save_file(tensors, weights, {"format": "pt"})
    if change == "truncated":
        weights.write_bytes(weights.read_bytes()[:100])


@pytest.mark.parametrize("make", [write_depth_estimator, write_segmenter])
@pytest.mark.parametrize(
    "change", ["missing", "left over", "mis-shaped", "another model", "no size", "truncated"]
)
def test_a_damaged_folder_is_refused(make, change, tmp_path):
    make(tmp_path)
    damage(tmp_path, change)
    with pytest.raises(FileFormatError, match=r"must (hold|tell)"):
        (DepthModel if make is write_depth_estimator else SemanticSegmenter)(tmp_path)


def test_no_folder_and_no_pictures(metric, tmp_path):
    with pytest.raises(FileFormatError, match=r"config\.json must be a JSON file"):
        DepthModel(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"seen\.frames"):
        DepthModel(metric).estimate(seen(None, torch.zeros(1, 7, 14)))
