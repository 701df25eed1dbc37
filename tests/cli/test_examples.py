"""Examples: each runs with the embedded model, says what it did, and writes where it says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_run(path: Path, tmp_path: Path) -> None:
    if "image" in path.stem:
        pytest.importorskip("skimage")
    done = subprocess.run(
        [sys.executable, str(path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = [file for file in (tmp_path / "out" / path.stem).rglob("*") if file.is_file()]
    assert written
    assert all(file.stat().st_size > 0 for file in written)


def test_there_are_five() -> None:
    assert [path.stem[:2] for path in EXAMPLES] == ["01", "02", "03", "04", "05"]
