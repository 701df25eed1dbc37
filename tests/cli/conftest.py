"""A tiny world model, and one short recording made by the command line itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mirage_sim.cli.main import main
from tests.models import save_tiny_world_model

Run = Callable[..., tuple[int, dict[str, Any], str]]


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_world_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def rolled(model_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two recorded episodes of six steps; read it, do not change it."""
    out = tmp_path_factory.mktemp("rollout")
    words = ["--steps", "6", "--episodes", "2", "--seed", "3", "--agent", "yaw_return"]
    assert main(["rollout", "--world-model", str(model_folder), "--out", str(out), *words]) == 0
    return out


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    """Run a command with --json: exit code, results, and what was said on stderr."""

    def call(*words: object) -> tuple[int, dict[str, Any], str]:
        capsys.readouterr()
        code = main([str(word) for word in words] + ["--json"])
        said = capsys.readouterr()
        lines = said.out.strip().splitlines()
        return code, json.loads(lines[-1]) if lines and code in (0, 1) else {}, said.err

    return call
