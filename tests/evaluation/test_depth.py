"""Depth errors with known values, and what the memory of a first view tells about the second."""

from __future__ import annotations

import math

import pytest
import torch

from mirage_sim.evaluation.config import DepthConfig
from mirage_sim.evaluation.depth import depth_errors, remembered, true_pairs
from tests.models import tiny_world_model


def test_depth_errors_of_known_values() -> None:
    truth = torch.tensor([[[2.0, 2.0], [2.0, 0.0]]])
    predicted = torch.tensor([[[2.2, 2.6], [1.0, 9.0]]])
    surface = torch.tensor([[[0.9, 0.9], [0.2, 0.1]]])
    errors = depth_errors(predicted, surface, truth, torch.ones(1, 2, 2, dtype=torch.bool))
    assert errors["median_error"] == pytest.approx(0.3, abs=1e-6)  # of 0.1, 0.3 and 0.5
    assert errors["delta_125"] == pytest.approx(1 / 3)
    assert errors["surface"] == pytest.approx(3 / 4)


def test_depth_errors_look_only_at_the_cells_asked_for() -> None:
    truth = torch.tensor([[[2.0, 2.0]]])
    first = torch.tensor([[[True, False]]])
    errors = depth_errors(torch.tensor([[[2.0, 8.0]]]), torch.ones(1, 1, 2), truth, first)
    assert errors == {"median_error": 0.0, "delta_125": 1.0, "surface": 1.0}
    sky = depth_errors(truth, torch.ones(1, 1, 2), torch.zeros(1, 1, 2), first)
    assert math.isnan(sky["median_error"])
    assert sky["surface"] == 0.0


def test_what_the_memory_tells_of_the_second_view_is_right() -> None:
    model = tiny_world_model(64, 64)
    views = true_pairs(model, 110_000, DepthConfig(worlds=1, pairs=3))
    assert views.latents.shape == (3, 2, 4, 8, 8)
    depth, known = remembered(model, views)
    assert 0.2 < float(known.float().mean()) <= 1.0
    truth = views.depth[:, 1]
    both = known & (truth > 0)
    error = ((depth - truth).abs() / truth)[both]
    assert float(error.median()) < 0.05
