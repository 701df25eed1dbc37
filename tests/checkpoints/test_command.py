"""Command: `mirage-sim convert` brings files there and back, and says what went wrong in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mirage_sim.checkpoints import open_checkpoint
from mirage_sim.checkpoints.files import read_tensors
from mirage_sim.cli.main import main
from tests.checkpoints.official import TINY, same


def convert(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, dict[str, Any], str]:
    """Run the command with --json: exit code, results, and what was said on stderr."""
    code = main(["convert", *(str(word) for word in words), "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out.splitlines()[-1]) if code == 0 else {}, said.err


def test_there_and_back(official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, ours, back = official, tmp_path / "ours", tmp_path / "back"
    files = ["--branch", source / "branch.safetensors", "--lora", source / "adapters.safetensors"]
    code, told, _ = convert(capsys, source, "--to", ours, *files)
    assert code == 0
    assert told["layout"] == "ours"
    assert told["condition_channels"] == 8
    assert told["files"] == ["checkpoint.json", "checkpoint.safetensors"]
    assert told["bytes"] == sum(path.stat().st_size for path in ours.iterdir())
    assert told["weights"].keys() == {"backbone", "branch", "adapters", "codec"}
    assert open_checkpoint(ours).config == TINY

    code, told, _ = convert(capsys, ours, "--to", back, "--as", "official")
    assert code == 0
    assert told["files"] == [
        *("Wan2.2_VAE.pth", "config.json", "diffusion_pytorch_model.safetensors", "lora.safetensors"),
        "memory_branch.safetensors",
    ]
    for first, last in (("branch", "memory_branch"), ("adapters", "lora")):
        left, right = source / f"{first}.safetensors", back / f"{last}.safetensors"
        assert same(read_tensors(left), read_tensors(right))


def test_what_goes_wrong_is_said_and_leaves_nothing(
    official: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = official
    for words, said in (
        ([source, "--to", tmp_path / "new", "--branch", source / "adapters.safetensors"], "got 0"),
        ([tmp_path / "nowhere", "--to", tmp_path / "new"], "source must be weights, got"),
        ([source, "--to", source], "--to must be a new or empty folder"),
    ):
        code, _, error = convert(capsys, *words)
        assert code == 2
        assert said in error
        assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["official"]
