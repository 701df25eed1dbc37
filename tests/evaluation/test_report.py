"""Reports: estimates, aims, strict JSON, tables and sheets."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim.errors import InputError
from mirage_sim.evaluation.report import (
    Aim,
    aims_table,
    estimate,
    estimate_ratio,
    format_table,
    plain,
    show,
    write_json,
    write_sheet,
)


def test_estimate_counts_worlds_that_have_a_value() -> None:
    told = estimate([1.0, 3.0, math.nan])
    assert told["mean"] == 2.0
    assert told["worlds"] == 2.0
    assert told["ci95"] == pytest.approx(12.706, rel=1e-4)  # Student's t with one degree of freedom


def test_a_world_with_hardly_anything_does_not_carry_a_ratio_away() -> None:
    told = estimate_ratio([1.0, 2.0, 5.0, 0.0], [1.0, 2.0, 1e-9, 0.0])
    assert told["mean"] == pytest.approx(8 / 3)
    assert told["worlds"] == 3.0
    exact = estimate_ratio([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert exact["mean"] == 2.0
    assert exact["ci95"] == pytest.approx(0.0, abs=1e-12)
    assert math.isnan(estimate_ratio([1.0], [0.0])["mean"])


def test_aims_say_by_how_much_they_are_missed() -> None:
    assert Aim("a", 30.0, low=34.0).missed_by == 4.0
    assert Aim("a", 1.3, 0.8, 1.2).missed_by == pytest.approx(0.1)
    assert Aim("a", 1.0, 0.8, 1.2).as_dict()["met"] is True
    nothing = Aim("a", math.nan, low=1.0).as_dict()
    assert nothing["met"] is False
    text = aims_table([Aim("a", 30.0, low=34.0).as_dict(), nothing])
    assert "missed by 4.00" in text
    assert ">= 34" in text


def test_json_is_strict_and_whole(tmp_path: Path) -> None:
    path = write_json(
        tmp_path / "new" / "r.json", {"a": math.nan, "b": [torch.ones(2), np.float32(1)], "c": Path("x")}
    )
    assert json.loads(path.read_text()) == {"a": None, "b": [[1.0, 1.0], 1.0], "c": "x"}
    assert [each.name for each in path.parent.iterdir()] == ["r.json"]
    assert plain({1: (True, None)}) == {"1": [True, None]}


def test_table_lines_up() -> None:
    lines = format_table([("one", ["1.0", "-"]), ("second", ["10.0", "x"])], ["left", "right"]).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert show({"mean": 1.234, "ci95": 0.5}) == "1.23 ± 0.50"
    assert show(None) == show(math.nan) == "-"


def test_sheet_holds_every_picture_in_place(tmp_path: Path) -> None:
    rows = [[np.full((8, 8, 3), 40 * (2 * r + c), np.uint8) for c in range(2)] for r in range(3)]
    image = np.asarray(Image.open(write_sheet(tmp_path / "s.png", rows, ["a", "b"], ["0", "1", "2"])))
    for r in range(3):
        for c in range(2):
            block = image[12 + r * 10 : 12 + r * 10 + 8, 10 + c * 10 : 10 + c * 10 + 8]
            assert (block == 40 * (2 * r + c)).all()
    with pytest.raises(InputError, match="rows must be"):
        write_sheet(tmp_path / "s.png", rows, ["a"], ["0", "1", "2"])
