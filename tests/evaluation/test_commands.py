"""Every command of `eval` and `bench`, whole, on a tiny world model."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation import bench, commands
from tests.models import save_tiny_world_model


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_world_model(tmp_path_factory.mktemp("model"))


def run(module: Any, words: list[str]) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    module.add_arguments(parser)
    result: dict[str, Any] = module.run(parser.parse_args(words))
    return result


def evaluate(model_folder: Path, out: Path, *words: str) -> dict[str, Any]:
    result = run(commands, [*words, "--world-model", str(model_folder), "--out", str(out)])
    report = json.loads(Path(result["report"]).read_text())
    assert report["model"]["id"] == "tiny"
    assert len(report["model"]["sha256"]) == 64
    assert report["hardware"]["cores"]
    assert report["command"] == f"eval {words[0]}"
    for name in result["files"]:
        assert Path(name).stat().st_size > 100
    json.dumps(result, allow_nan=False)
    return report


def test_eval_codec(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = evaluate(model_folder, tmp_path, "codec", "--worlds", "2", "--frames", "2")
    assert report["figures"]["psnr"]["worlds"] == 2
    assert "psnr" in capsys.readouterr().out


def test_eval_depth(model_folder: Path, tmp_path: Path) -> None:
    figures = evaluate(model_folder, tmp_path, "depth", "--worlds", "2", "--pairs", "2")["figures"]["figures"]
    assert set(figures) == {"alone", "with_memory"}
    assert figures["alone"]["all"]["median_error"]["mean"] > 0


def test_eval_loop(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--worlds", "2", "--length", "2", "--steps", "1", "--references", "1", "--known-fraction", "0.2"]
    report = evaluate(model_folder, tmp_path, "loop", *words, "--no-extras")
    assert report["model"]["sampler"]["steps"] == 1
    assert report["model"]["sampler"]["known_fraction"] == 0.2
    assert (report["model"]["references"], report["model"]["extras"]) == (1, False)
    assert set(report["figures"]["paths"]["yaw"]) == {"on", "off", "ceiling", "warped", "on_minus_off"}
    assert {Path(name).name for name in report["files"]} == {"loop-out.png", "loop-yaw.png"}
    assert "memory off" in capsys.readouterr().out


def test_eval_realism(model_folder: Path, tmp_path: Path) -> None:
    words = ["--worlds", "2", "--length", "2", "--every", "2", "--seeds", "2", "--steps", "1"]
    figures = evaluate(model_folder, tmp_path, "realism", *words)["figures"]
    assert figures["sharpness"]["imagined"]["codec"]["mean"] > 0
    assert set(figures["frechet"]["imagined"]["cell"]) == {"on", "off", "codec", "truth_halves"}
    assert figures["diversity"]["latent"]["mean"] > 0


def test_eval_walk(model_folder: Path, tmp_path: Path) -> None:
    report = evaluate(model_folder, tmp_path, "walk", "--steps", "12", "--window", "4")
    assert {len(values) for values in report["figures"]["series"].values()} == {12}
    assert {Path(name).name for name in report["files"]} == {"walk.png", "walk-frames.png"}


def test_bench_step(model_folder: Path, tmp_path: Path) -> None:
    words = ["step", "--steps", "2", "--warm-up", "1", "--vector", "2"]
    result = run(bench, [*words, "--world-model", str(model_folder), "--out", str(tmp_path)])
    one = result["figures"]["one"]
    assert one["steps_per_second"] == pytest.approx(1000 / one["ms"]["step"])
    assert result["figures"]["latents"]["ms"]["decode"] < one["ms"]["decode"]
    assert one["ms"]["record"] > 0


def test_bench_read(tmp_path: Path) -> None:
    result = run(bench, ["read", "--sizes", "10", "100", "--repeats", "1", "--out", str(tmp_path)])
    report = json.loads(Path(result["report"]).read_text())
    assert [row["entries"] for row in report["figures"]["sizes"]] == [10, 100]


def test_a_missing_model_and_bad_numbers_leave_nothing_behind(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(FileFormatError, match=r"model\.json"):
        run(commands, ["codec", "--world-model", str(tmp_path), "--out", str(out)])
    with pytest.raises(InputError, match="worlds must be in"):
        run(commands, ["loop", "--worlds", "0", "--out", str(out)])
    assert not out.exists()
