"""Tables of documents from results: what is marked is replaced, everything else stays, damage is named."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mirage_sim.cli.main import main
from mirage_sim.errors import FileFormatError
from mirage_sim.evaluation.results import TABLES, markdown, write_results
from mirage_sim.evaluation.rows import summarise

TEXT = "before\n<!-- results: consistency -->\nold\n<!-- /results -->\nafter\n"


def figures() -> dict[str, object]:
    names = ("self_psnr", "closure_psnr", "seen_psnr", "truth_psnr", "sharpness", "step_ms", "bytes")
    rows = [
        {"way": "yaw", "method": method, "world": world} | dict.fromkeys(names, 10.0 + world)
        for method in ("latent", "none")
        for world in range(2)
    ]
    return summarise(rows)


def test_only_what_is_marked_is_written(tmp_path: Path) -> None:
    document, folder = tmp_path / "README.md", tmp_path / "out"
    document.write_text(TEXT)
    (folder / "eval-consistency").mkdir(parents=True)
    (folder / "eval-consistency" / "results.json").write_text(json.dumps({"figures": figures(), "aims": []}))
    assert main(["results", str(document), "--out", str(folder)]) == 0
    text = document.read_text()
    assert text.startswith("before\n<!-- results: consistency -->\n\n| way |")
    assert text.endswith("<!-- /results -->\nafter\n")
    assert "| yaw | latent memory | 10.5 ± 6.4 |" in text
    assert "old" not in text
    assert write_results(document, folder) == ["consistency"]
    assert document.read_text() == text


def test_unknown_marks_and_missing_results_leave_the_document(tmp_path: Path) -> None:
    document = tmp_path / "README.md"
    document.write_text(TEXT)
    with pytest.raises(FileFormatError, match=r"results\.json must hold results"):
        write_results(document, tmp_path)
    assert document.read_text() == TEXT
    document.write_text(TEXT.replace("consistency", "magic"))
    with pytest.raises(FileFormatError, match="must mark tables among"):
        write_results(document, tmp_path)
    assert main(["results", str(tmp_path / "none.md")]) == 2


def test_tables_are_markdown() -> None:
    assert markdown(["a", "b"], [["1", "2"]]) == "| a | b |\n| --- | --- |\n| 1 | 2 |"


def test_the_readme_marks_known_tables() -> None:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    marks = [line.split()[2] for line in text.splitlines() if line.startswith("<!-- results:")]
    assert set(marks) <= set(TABLES)
