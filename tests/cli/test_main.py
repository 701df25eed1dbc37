"""Entry: quick help, exit codes, and commands that live elsewhere."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import types
from typing import Any

import pytest

import mirage_sim
from mirage_sim.cli.main import COMMANDS, EXIT_INTERRUPTED, build_parser, main
from mirage_sim.errors import InputError


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys\nfrom mirage_sim.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'diffusers', 'pybullet', 'h5py', 'matplotlib'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.strip() == f"mirage-sim {mirage_sim.__version__}"


@pytest.mark.parametrize("words", [[], ["dance"], ["rollout", "--agent", "nobody"], ["info"]])
def test_wrong_usage_ends_with_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(words)
    assert end.value.code == 2
    assert "usage: mirage-sim" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_its_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main([name, "--help"])
    assert end.value.code == 0
    assert "--json" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        *("data", "codec", "depth", "resample", "backbone", "branch", "lora", "finetune", "refine"),
        *("guide", "distil", "export --to model", "bench"),
    ],
)
def test_training_stages_are_known(words: str) -> None:
    args = build_parser("train").parse_args(["train", *words.split()])
    assert (args.command, args.stage) == ("train", words.split()[0])


@pytest.mark.parametrize(
    ("group", "what"),
    [
        *(("eval", name) for name in ("codec", "depth", "loop", "realism", "walk")),
        ("bench", "step"),
        ("bench", "read"),
    ],
)
def test_measurements_are_known(group: str, what: str) -> None:
    assert build_parser(group).parse_args([group, what]).command == group


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    """A stand-in for the module behind `train`; `behave` is what its `run` does."""
    module = types.ModuleType("stand_in")

    def add_arguments(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("stage")

    module.add_arguments = add_arguments  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, COMMANDS["train"].module, module)
    return module


def test_a_command_elsewhere_gets_its_arguments_and_gives_its_results(
    elsewhere: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    elsewhere.run = lambda args: {"stage": args.stage, "loss": 0.123456789}
    assert main(["train", "codec", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"stage": "codec", "loss": 0.123456789}
    assert main(["train", "codec"]) == 0
    assert capsys.readouterr().out == "stage: codec\nloss: 0.123457\n"


def test_errors_and_interruptions_are_one_line(elsewhere: Any, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(args: Any) -> None:
        raise InputError("steps must be at least 1,\n  got 0")

    def interrupt(args: Any) -> None:
        raise KeyboardInterrupt

    elsewhere.run = fail
    assert main(["train", "codec"]) == 2
    assert capsys.readouterr().err == "mirage-sim: steps must be at least 1, got 0\n"
    elsewhere.run = interrupt
    assert main(["train", "codec"]) == EXIT_INTERRUPTED
    assert capsys.readouterr().err == "mirage-sim: interrupted\n"


def test_an_unforeseen_error_is_not_hidden(elsewhere: Any) -> None:
    def fail(args: Any) -> None:
        raise ZeroDivisionError

    elsewhere.run = fail
    with pytest.raises(ZeroDivisionError):
        main(["train", "codec"])
