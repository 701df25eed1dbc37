"""Realism figures on hand-made frames and latents."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mirage_sim.evaluation.config import WorldsConfig
from mirage_sim.evaluation.realism import Judged, latent_features, seed_spread, unseen_cells, world_gradients
from mirage_sim.evaluation.worlds import make_test_worlds
from mirage_sim.geometry import make_intrinsics
from tests.models import tiny_world_model


def judged(unknown: torch.Tensor, **frames: np.ndarray) -> Judged:
    blank = next(iter(frames.values()))
    pictures = {name: frames.get(name, blank) for name in ("truth", "on", "off", "codec")}
    return Judged({"new": unknown}, pictures, {})


def test_sharpness_counts_only_what_was_unknown() -> None:
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 255, (2, 16, 16, 3), dtype=np.uint8)
    flat_left = truth.copy()
    flat_left[:, :, :8] = 128
    right = torch.zeros(2, 2, 2, dtype=torch.bool)
    right[:, :, 1] = True
    kept = world_gradients([judged(right, truth=truth, on=flat_left)], "new")
    assert kept["on"] == kept["truth"] > 0
    assert world_gradients([judged(~right, truth=truth, on=flat_left)], "new")["on"] == 0.0
    nothing = world_gradients([judged(torch.zeros_like(right), truth=truth)], "new")
    assert set(nothing.values()) == {0.0}


def test_halved_contrast_has_a_quarter_of_the_energy() -> None:
    truth = 2 * np.random.default_rng(0).integers(0, 127, (1, 16, 16, 3), dtype=np.uint8)
    unknown = torch.ones(1, 2, 2, dtype=torch.bool)
    energy = world_gradients([judged(unknown, truth=truth, off=truth // 2)], "new")
    assert energy["off"] == pytest.approx(0.25 * energy["truth"])
    assert energy["codec"] == energy["truth"]


def test_features_come_from_unknown_cells() -> None:
    latents = torch.arange(2 * 3 * 4 * 4, dtype=torch.float32).reshape(2, 3, 4, 4)
    unknown = torch.zeros(2, 4, 4, dtype=torch.bool)
    unknown[0, :2, :3] = True  # six cells, of which one block of 2x2; the second frame has none
    features = latent_features(latents, unknown)
    assert features["cell"].shape == (6, 3)
    assert torch.equal(features["cell"][0], latents[0, :, 0, 0])
    assert torch.equal(
        features["patch"], torch.cat([latents[0, :, y, x] for y in (0, 1) for x in (0, 1)])[None]
    )
    assert features["pooled"].shape == (1, 6)
    torch.testing.assert_close(features["pooled"][0, :3], latents[0, :, :2, :3].mean(dim=(-2, -1)))


def test_features_of_nothing_are_empty() -> None:
    features = latent_features(torch.zeros(1, 3, 4, 4), torch.zeros(1, 4, 4, dtype=torch.bool))
    assert {name: tuple(values.shape) for name, values in features.items()} == {
        "cell": (0, 3),
        "patch": (0, 12),
        "pooled": (0, 6),
    }


def test_what_a_turn_brings_into_view_is_imagined() -> None:
    config = WorldsConfig(worlds=1, steps=1, yaw_degrees=90, yaw_step_degrees=30)
    world = next(make_test_worlds(config, make_intrinsics(64, 64, 75.0), (64, 64)))
    cells = unseen_cells(world, "yaw", [0, 1, 3], (8, 8))
    sky = torch.nn.functional.avg_pool2d((world.paths["yaw"].depth[:1] == 0).float(), 8) > 0.5
    assert torch.equal(cells[0], sky[0])
    assert cells[1, :, 0].all()  # the camera turns left
    assert cells[1].float().mean() < 0.8
    assert cells[2].all()


def test_seeds_differ_where_nothing_is_known() -> None:
    model = tiny_world_model()
    world = next(
        make_test_worlds(
            WorldsConfig(worlds=1, steps=1, yaw_degrees=90, yaw_step_degrees=45), model.intrinsics(), (32, 32)
        )
    )
    latent, pixel = seed_spread(model, world, 2)
    assert latent > 0
    assert pixel > 0
