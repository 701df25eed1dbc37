"""The package as a whole: what a wheel holds, which way imports run, what importing costs."""

from __future__ import annotations

import ast
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from mirage_sim.baselines.config import KINDS

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mirage_sim"

MAY_IMPORT = {
    "geometry": set(),
    "memory": {"geometry"},
    "perception": {"geometry"},
    "text": set(),
    "model": {"geometry", "memory", "perception", "text"},
    "checkpoints": {"model", "perception", "text"},
    "world": {"geometry", "memory", "model", "perception", "text"},
    "scenes": {"geometry"},
    "recording": {"geometry"},
    "sources": {"geometry", "recording", "model"},
    "baselines": {"geometry", "memory", "model"},
    "embedded": set(),
    "envs": {"geometry", "memory", "model", "checkpoints", "world", "scenes"},
    "agents": {"geometry", "memory", "model", "world", "envs"},
    "training": {
        *("geometry", "memory", "model", "baselines", "world", "scenes", "recording", "evaluation"),
        *("checkpoints", "perception", "sources", "text"),
    },
    "evaluation": {
        *("geometry", "memory", "model", "baselines", "world", "scenes", "recording", "envs", "agents"),
        *("checkpoints", "perception"),
    },
    "cli": {
        *("geometry", "memory", "model", "world", "scenes", "recording", "envs", "agents"),
        *("training", "evaluation", "checkpoints", "text", "sources"),
    },
}
"""Which rooms a room may import from, beside itself and the errors."""


def imported_modules(path: Path) -> set[str]:
    """Absolute names that a file imports, wherever in it, names taken from `mirage_sim` among them."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("room", sorted(MAY_IMPORT))
def test_imports_run_one_way(room: str) -> None:
    files = sorted((PACKAGE / room).rglob("*.py"))
    assert files
    for path in files:
        ours = {name.split(".")[1] for name in imported_modules(path) if name.startswith("mirage_sim.")}
        wrong = (ours & set(MAY_IMPORT)) - MAY_IMPORT[room] - {room}
        assert not wrong, f"{path.relative_to(ROOT)} must not import {sorted(wrong)}"


def test_every_room_has_its_rule() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(MAY_IMPORT)


@pytest.mark.parametrize("statement", ["import mirage_sim", "import mirage_sim.cli.main, mirage_sim.errors"])
def test_importing_is_light(statement: str) -> None:
    program = (
        f"import sys\n{statement}\nassert not {{'torch', 'diffusers', 'pybullet', 'h5py'}} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""


def test_loading_is_offered_lazily() -> None:
    import mirage_sim

    assert "load_world_model" in dir(mirage_sim)
    assert callable(mirage_sim.load_world_model)
    with pytest.raises(AttributeError):
        mirage_sim.nothing_of_this_name  # noqa: B018


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """Names of the files in a wheel, built from a copy so that leftovers of earlier builds do not count."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("wheel")
    source.mkdir()
    for name in ("mirage_sim", "envs", "agents"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "-m", "pip", "wheel", "--no-build-isolation", "--no-deps", "--no-index"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(out), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    (wheel,) = out.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


def test_a_wheel_holds_every_room(wheel_names: set[str]) -> None:
    expected = {
        f"mirage_sim/{path.relative_to(PACKAGE)}"
        for pattern in ("*.py", "*/*.py")
        for path in PACKAGE.glob(pattern)
    }
    assert {"mirage_sim/envs/explore.py", "mirage_sim/agents/registry.py"} <= expected
    assert expected <= wheel_names
    assert "mirage_sim/py.typed" in wheel_names


def test_a_wheel_holds_the_embedded_model(wheel_names: set[str]) -> None:
    names = {"mirage_sim/embedded/model.json", "mirage_sim/embedded/model.safetensors"}
    assert names <= wheel_names
    weights = PACKAGE / "embedded" / "model.safetensors"
    assert weights.stat().st_size <= 36 * 2**20


def test_a_wheel_holds_the_baselines_weights(wheel_names: set[str]) -> None:
    assert {f"mirage_sim/baselines/{kind}.safetensors" for kind in KINDS} <= wheel_names


def test_a_wheel_installs_nothing_beside_the_package(wheel_names: set[str]) -> None:
    tops = {name.split("/")[0] for name in wheel_names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"mirage_sim"}
