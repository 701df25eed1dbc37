"""What filters keep out of the memory where things move, on a tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from mirage_sim.errors import InputError
from mirage_sim.evaluation.config import MovingConfig
from mirage_sim.evaluation.moving import FILTERS, evaluate_moving, moving_table
from tests.models import tiny_world_model


def test_a_mask_keeps_movers_out(tmp_path: Path) -> None:
    config = MovingConfig("validation", 2, steps=4, seconds=0.5)
    result = evaluate_moving(tiny_world_model(128, 128), config, tmp_path)
    told = result["filters"]
    assert set(told) == set(FILTERS)
    assert told["mask"]["entries"]["mean"] < told["none"]["entries"]["mean"]
    assert told["mask"]["depth_error_here"]["mean"] < 0.5 * told["none"]["depth_error_here"]["mean"]
    assert told["none"]["known_here"]["mean"] > told["mask"]["known_here"]["mean"]
    assert told["free space"]["entries"]["mean"] <= told["none"]["entries"]["mean"]
    assert set(result["gain"]) == set(FILTERS) - {"none"}
    assert "free space, aside" in moving_table(result)
    assert (tmp_path / "moving.png").stat().st_size > 1000


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="steps must be even"):
        MovingConfig(steps=3)
    with pytest.raises(InputError, match="worlds must be in"):
        MovingConfig(worlds=0)
