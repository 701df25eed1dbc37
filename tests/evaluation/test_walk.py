"""Statistics of long walks on hand-made series and pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.evaluation.config import WalkRunConfig
from mirage_sim.evaluation.walk import (
    PICTURES,
    SERIES,
    laps,
    picture_statistics,
    resident_mib,
    walk_aims,
    window_ratios,
)


def test_statistics_of_a_flat_and_of_a_striped_picture() -> None:
    flat = np.full((1, 8, 8, 3), 255, np.uint8)
    flat[..., 1] = 0
    told = {name: float(value[0]) for name, value in picture_statistics(flat).items()}
    assert (told["mean_red"], told["mean_green"], told["mean_blue"]) == (1.0, -1.0, 1.0)
    assert told["sharpness"] == 0.0
    stripes = np.zeros((1, 8, 8, 3), np.uint8)
    stripes[:, :, ::2] = 255
    told = {name: float(value[0]) for name, value in picture_statistics(stripes).items()}
    assert told["contrast"] == pytest.approx(1.0)
    assert told["sharpness"] == pytest.approx(2.0)  # half of the pairs differ by 2


def steady(steps: int = 40) -> dict[str, list[float]]:
    return {name: [2.0] * steps for name in (*SERIES, *(f"truth_{name}" for name in PICTURES))}


def test_a_steady_walk_has_ratios_of_one_and_meets_every_aim() -> None:
    ratios = window_ratios(steady(), 10)
    assert ratios["sharpness"] == ratios["step_ms"] == ratios["sharpness_to_truth"] == 1.0
    assert ratios["mean_red_shift"] == 0.0
    assert all(aim.missed_by == 0.0 for aim in walk_aims(steady(), 10))


def test_a_walk_that_slows_down_grows_and_blurs_misses_its_aims() -> None:
    series = steady()
    series["step_ms"][-10:] = [4.0] * 10
    series["entries"] = [float(i) for i in range(1, 41)]
    series["sharpness"][-10:] = [1.0] * 10
    missed = {aim.name.split(",")[0]: aim.missed_by for aim in walk_aims(series, 10)}
    assert missed["step time"] == pytest.approx(0.9)
    assert missed["memory entries"] == pytest.approx(40 / 21 - 1.25)
    assert missed["sharpness over truth's"] == pytest.approx(0.3)
    assert missed["process memory"] == 0.0


def test_one_outlier_does_not_move_the_ratio() -> None:
    series = steady()
    series["step_ms"][-1] = 1000.0
    assert window_ratios(series, 10)["step_ms"] == 1.0


def test_laps_lead_there_and_back_step_by_step() -> None:
    way = torch.arange(4.0)
    assert laps(way, 13).tolist() == [0, 1, 2, 3, 2, 1, 0, 1, 2, 3, 2, 1, 0, 1]


def test_process_memory_is_told() -> None:
    assert resident_mib() > 10


@pytest.mark.parametrize(
    "changes", [{"split": "none"}, {"index": -1}, {"steps": 10, "window": 6}, {"seed": -1}, {"laps": 0}]
)
def test_bad_settings_are_named(changes: dict) -> None:
    with pytest.raises(InputError, match=next(iter({"steps": "window"}.get(key, key) for key in changes))):
        WalkRunConfig(**changes)
