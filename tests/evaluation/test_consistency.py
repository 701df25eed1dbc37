"""Comparison of ways to remember: scores on hand-made rollouts, rows that last, and the whole command."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mirage_sim.baselines.config import KINDS
from mirage_sim.baselines.weights import save_baseline, shared_digest, with_own_parts
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation import methods
from mirage_sim.evaluation.config import ALL_WAYS, ConsistencyConfig, WorldsConfig
from mirage_sim.evaluation.consistency import (
    compared_places,
    evaluate_consistency,
    revisit_scores,
    true_video,
)
from mirage_sim.evaluation.consistency_report import consistency_page, consistency_table
from mirage_sim.evaluation.perceptual import lpips_distance
from mirage_sim.evaluation.revisits import WAYS, Revisit, plan_revisit, there_and_back
from mirage_sim.evaluation.rows import Rows, summarise
from mirage_sim.geometry import from_yaw_pitch, make_intrinsics
from mirage_sim.model.world_model import WorldModel
from mirage_sim.scenes import SPLITS, make_scene
from tests.models import tiny_world_model

SIZE = 16


@pytest.fixture
def still() -> Revisit:
    """Two laps of four steps out and back, at rest before a textured wall."""
    out = from_yaw_pitch(torch.tensor([0.0, 0.0, 1.4]), 0.0, 0.0).float().expand(5, 4, 4)
    cameras, pairs = there_and_back(out, 2)
    picture = np.random.default_rng(0).integers(0, 200, (SIZE, SIZE, 3), dtype=np.uint8)
    frames, depth = np.stack([picture] * 3), torch.full((3, SIZE, SIZE), 2.0)
    return Revisit(0, 0, 0, make_intrinsics(SIZE, SIZE, 75.0), cameras, pairs, [0, 2, 4], frames, depth)


def scores(world: Revisit, frames: np.ndarray) -> dict[str, float]:
    return revisit_scores(world, frames, torch.ones(len(frames), 2, 2, dtype=torch.bool), 2)


def test_what_stays_and_is_true_reaches_the_cap(still: Revisit) -> None:
    told = scores(still, np.stack([still.frames[0]] * 17))
    for name in ("self_psnr", "closure_psnr", "truth_psnr", "seen_psnr", "lap_1", "lap_2", "lap_3"):
        assert told[name] == pytest.approx(60.0), name
    assert told["self_mse"] == 0.0
    assert told["sharpness"] == pytest.approx(1.0)
    assert told["coverage"] == 1.0
    assert np.isnan(told["flip_psnr"])  # more than there and back


def test_drift_shows_lap_by_lap(still: Revisit) -> None:
    """Every time on the way is 17 of 255 lighter than the one before: 23.5, 17.5 and 14.0 dB."""
    frames = [still.frames[0] + np.uint8(17 * min((place - 1) // 4, 3)) for place in range(1, 17)]
    told = scores(still, np.stack([still.frames[0], *frames]))
    assert told["lap_1"] == pytest.approx(23.52, abs=0.01)
    assert told["lap_2"] == pytest.approx(17.50, abs=0.01)
    assert told["lap_3"] == pytest.approx(13.98, abs=0.01)
    assert told["truth_psnr"] == pytest.approx(60.0)  # the first time was right
    assert told["closure_psnr"] == pytest.approx(13.98, abs=0.01)


def test_only_what_is_compared_is_decoded(still: Revisit) -> None:
    assert compared_places(still, 2) == [0, 2, 4, 6, 8, 10, 12, 14, 16]
    video = true_video(still)
    assert len(video) == 17
    assert all(np.array_equal(frame, still.frames[0]) for frame in video)


@pytest.mark.parametrize("name", sorted(WAYS))
def test_ways_come_back_to_the_same_poses(name: str) -> None:
    with make_scene(SPLITS["validation"][0]) as scene:
        cameras, pairs = plan_revisit(name, scene, 0)
        again, _ = plan_revisit(name, scene, 0)
        assert torch.equal(cameras, again)
        assert pairs
        assert all(torch.equal(cameras[a], cameras[b]) and a < b for a, b in pairs)
        points = cameras[:, :3, 3].double().numpy()
        assert all(scene.is_free(point, 0.1) for point in points)


def test_rows_last_and_belong_to_one_run(tmp_path: Path) -> None:
    rows = Rows(tmp_path, {"seed": 0})
    rows.add([{"way": "yaw", "method": "latent", "world": 0, "x": 3.0}])
    rows.add([{"way": "yaw", "method": "latent", "world": 0, "x": 4.0}])
    opened = Rows(tmp_path, {"seed": 0})
    assert opened.has("yaw", "latent", 0)
    assert [row["x"] for row in opened.rows] == [3.0]
    with pytest.raises(FileFormatError, match="must belong to"):
        Rows(tmp_path, {"seed": 1})
    (tmp_path / "rows.jsonl").write_text("{")
    with pytest.raises(FileFormatError, match="must hold JSON lines"):
        Rows(tmp_path, {"seed": 0})


def test_differences_are_paired_by_world() -> None:
    values = {"latent": (30.0, 40.0, 50.0), "none": (29.0, 38.0, 47.0)}
    rows = [
        {"way": "yaw", "method": method, "world": world, "self_psnr": value}
        for method, told in values.items()
        for world, value in enumerate(told)
    ]
    result = summarise(rows)
    assert result["ways"]["yaw"]["latent"]["self_psnr"]["mean"] == pytest.approx(40.0)
    assert result["latent_minus"]["yaw"]["none"]["self_psnr"]["mean"] == pytest.approx(2.0)
    assert result["latent_minus"]["yaw"]["none"]["self_psnr"]["ci95"] == pytest.approx(2.484, abs=0.01)


def test_perceptual_distance_is_unknown_without_its_weights() -> None:
    pictures = torch.zeros(1, 3, 64, 64)
    distance = lpips_distance(pictures, pictures)
    assert np.isnan(distance) or distance == pytest.approx(0.0, abs=1e-6)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[WorldModel, Path]:
    """A tiny model and weights of its baselines, untrained."""
    folder, model = tmp_path_factory.mktemp("baselines"), tiny_world_model()
    for kind in KINDS:
        save_baseline(with_own_parts(model, kind), kind, shared_digest(model), folder / f"{kind}.safetensors")
    return model, folder


@pytest.fixture
def tiny(trained: tuple[WorldModel, Path], monkeypatch: pytest.MonkeyPatch) -> WorldModel:
    """A tiny model whose baselines are found where they were saved."""
    model, folder = trained
    load = methods.load_baseline
    monkeypatch.setattr(
        methods, "load_baseline", lambda m, kind: load(m, kind, folder / f"{kind}.safetensors")
    )
    return model


@pytest.mark.slow
def test_a_comparison_goes_on_where_it_was(tiny: WorldModel, tmp_path: Path) -> None:
    worlds = WorldsConfig("validation", 2)
    config = ConsistencyConfig(worlds, ways=("yaw", "reentry"), every=8, batch=1)
    first = evaluate_consistency(tiny, config, tmp_path)
    rows = (tmp_path / "rows.jsonl").read_text()
    assert len(rows.splitlines()) == 1 + 2 * 2 * len(methods.LABELS)
    again = evaluate_consistency(tiny, config, tmp_path)
    assert (tmp_path / "rows.jsonl").read_text() == rows
    assert json.dumps(first["ways"]) == json.dumps(again["ways"])
    assert set(first["latent_minus"]["yaw"]) == set(methods.LABELS) - {"latent"}
    assert first["ways"]["yaw"]["none"]["entries"]["mean"] == 0
    assert first["ways"]["yaw"]["latent"]["entries"]["mean"] > 0
    assert (tmp_path / "rows.csv").read_text().count("\n") == 1 + 2 * 2 * len(methods.LABELS)
    assert "colour points, 1 cm" in consistency_table(first)
    videos = [Path(name) for name in first["files"] if name.endswith(".mp4")]
    told = {(video.parent.name, video.stem) for video in videos}
    assert told == {(way, name) for way in ("yaw", "reentry") for name in (*methods.LABELS, "truth")}
    page = consistency_page(first, tmp_path / "page.html", "tiny", videos).read_text()
    assert page.count("<video") == 2 * (1 + len(methods.LABELS))
    assert "http" not in page  # nothing beside it is needed


def test_a_saved_world_goes_on_as_one_that_was_not(tiny: WorldModel, tmp_path: Path) -> None:
    """Re-entry walks the same way as out-32, so every figure must be the same."""
    config = ConsistencyConfig(WorldsConfig("validation", 1), ("latent",), ("out-32", "reentry"), 8, 1)
    result = evaluate_consistency(tiny, config, tmp_path)["ways"]
    plain, saved = (
        {k: v["mean"] for k, v in result[way]["latent"].items() if k not in ("step_ms", "bytes")}
        for way in ("out-32", "reentry")
    )
    assert plain == pytest.approx(saved, nan_ok=True)


def test_unknown_names_are_refused() -> None:
    with pytest.raises(InputError, match=r"methods must be among .* got \['magic'\]"):
        ConsistencyConfig(WorldsConfig(), methods=("magic",))
    with pytest.raises(InputError, match="ways must be among"):
        ConsistencyConfig(WorldsConfig(), ways=())
    with pytest.raises(InputError, match="methods must be among"):
        methods.make_method("magic", tiny_world_model())
    assert set(WAYS) < set(ALL_WAYS)
