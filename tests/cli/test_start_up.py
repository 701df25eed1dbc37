"""What starting costs: help and refused arguments import no torch, the embedded model no diffusers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mirage_sim.cli.main import COMMANDS
from mirage_sim.evaluation.commands import EVALUATIONS
from mirage_sim.training.stages import STAGES

BENCHES = ("step", "read", "memory", "counts", "full-size")
HEAVY = ["torch", "diffusers", "transformers", "peft", "pybullet", "h5py", "scipy", "matplotlib"]
ALL_COMMANDS = [
    [],
    *([name] for name in COMMANDS),
    *(["train", stage] for stage in STAGES),
    *(["eval", name] for name in EVALUATIONS),
    *(["bench", name] for name in BENCHES),
]


def python(program: str, *words: str, **changes: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a process of its own."""
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, **changes})


def outcomes(lines: list[list[str]]) -> list[tuple[object, str, list[str]]]:
    """Exit code, last line of errors, and heavy modules imported so far, of one command after another."""
    program = """
import contextlib, io, json, sys
from mirage_sim.cli.main import main
found = []
for words in json.loads(sys.argv[1]):
    told = io.StringIO()
    with contextlib.redirect_stderr(told), contextlib.redirect_stdout(io.StringIO()):
        try:
            code = main(words)
        except SystemExit as end:
            code = end.code
    last = (told.getvalue().strip().splitlines() or [""])[-1]
    found.append((code, last, sorted(set(json.loads(sys.argv[2])) & set(sys.modules))))
print(json.dumps(found))
"""
    done = python(program, json.dumps(lines), json.dumps(HEAVY))
    assert done.returncode == 0, done.stderr
    found: list[tuple[object, str, list[str]]] = json.loads(done.stdout)
    return found


def test_help_of_every_command_imports_nothing_heavy() -> None:
    lines = [[*words, "--help"] for words in ALL_COMMANDS]
    for words, (code, _, heavy) in zip(lines, outcomes(lines), strict=True):
        assert (code, heavy) == (0, []), words


REFUSED = [
    ("rollout --steps -3", "--steps must be at least 1, got -3"),
    ("rollout --episodes 0", "--episodes must be at least 1"),
    ("rollout --seed -1", "--seed must be at least 0"),
    ("rollout --fps 0", "--fps must be a positive number, got 0"),
    ("rollout --fps nan", "--fps must be a positive number, got nan"),
    ("rollout --stpes 3", "unrecognized arguments: --stpes"),
    ("rollout --agent nobody", "invalid choice: 'nobody'"),
    ("rollout --env Mirage/Explor-v0", "did you mean Mirage/Explore-v0"),
    ("rollout --env nowhere:Thing-v0", "--env must be a registered environment"),
    ("rollout --env-arg acton_mode=pose", "did you mean action_mode?"),
    ("rollout --env-arg action_mode=dance", "action_mode must be one of"),
    ('rollout --env-arg observations=[["rgb"]]', "observations must be some of"),
    ("rollout --env-arg nothing", "--env-arg must be NAME=VALUE"),
    ("rollout --world-model embeded", "\"embedded\" or a folder of weights, got 'embeded'"),
    ("rollout --world-model {there}/gone", "which does not exist"),
    ("rollout --device cdua", '"cpu", "cuda" or "cuda:N", got'),
    ("rollout --out {there}/file", "--out must be a folder, got {there}/file, which is a file"),
    ("rollout --out {there}/file/deeper", "--out must be a folder that can be made"),
    ("rollout --out /proc/none", "--out must be a folder that can be made, got /proc/none"),
    ("rollout --out {there}/done", "--overwrite replaces it"),
    ("info {there}/gone.h5", "file must be a file, got {there}/gone.h5, which does not exist"),
    ("info {there}", "which is a folder"),
    ("replay {there}/file --fps 0", "--fps must be a positive number"),
    ("replay {there}/file --out x.gif", "--out must end in .mp4 or .png"),
    ("replay {there}/file --columns 0", "--columns must be at least 1"),
    ("replay {there}/file --out {there}/file/x.png", "must be a folder"),
    ("replay {there}/file --check --world-model {there}/gone", "which does not exist"),
    ("train", "the following arguments are required: STAGE"),
    ("train nothing", "invalid choice: 'nothing'"),
    ("train codec --rank 3", "unrecognized arguments: --rank 3"),
    ("train codec --steps 0 --out {there}/new", "steps, batch_size and accumulate must be at least 1, got 0"),
    ("train codec --learning-rate -1 --out {there}/new", "learning_rate must be a positive number, got -1"),
    ("train codec --seed -1 --out {there}/new", "seed must be at least 0, got -1"),
    ("train codec --out {there}/new", "run `mirage-sim train data --out {there}/new` first"),
    ("train backbone --out {there}/run", "run `mirage-sim train codec --out {there}/run` first"),
    ("train data --workers 0", "--workers must be at least 1"),
    ("train data --scenes 0", "scenes must be in 1..100000, got 0"),
    ("train data --out {there}/file", "--out must be a folder"),
    ("train export --out {there}/new --to {there}/to", "without model/model.json"),
    ("train export", "the following arguments are required: --to"),
    (
        "train branch --latents {there}/file",
        "--world-model must name a folder of full-size weights beside --latents",
    ),
    ("train branch --world-model {there}", "--latents must name the file"),
    ("train lora --world-model {there}/gone --latents {there}/file", "{there}/gone, which does not exist"),
    ("train lora --world-model {there} --latents {there}/gone", "--latents must be a file"),
    ("train lora --world-model {there} --latents {there}/file --rank 0", "rank and alpha must be at least 1"),
    ("train branch --world-model {there} --latents {there}/file --prompts {there}/gone", "prompts must be"),
    ("train branch --world-model {there} --latents {there}/file --held-out {there}/gone", "--held-out must"),
    ("train bench --steps 1", "steps must be at least 2"),
    ("eval codec --worlds 0", "worlds must be in 1..10000, got 0"),
    ("eval loop --every 0", "every, batch and sheet_worlds must be at least 1"),
    ("eval loop --sampling-steps 0", "steps must be at least 1, got 0"),
    ("eval loop --known-fraction 2", "known_fraction must be in [0, 1], got 2"),
    ("eval loop --references -1", "--references must be at least 0, got -1"),
    ("eval realism --seeds 1", "seeds must be at least 2"),
    ("eval walk --steps 4", "window must be positive"),
    ("eval consistency --methods magic", "methods must be among"),
    ("eval ablations --variants magic", "variants must be among"),
    ("eval moving --steps 3", "steps must be even"),
    ("eval trajectories --folder {there}/gone", "--folder must be a folder"),
    ("eval trajectories --scenes 0", "scenes must be in 1..10000"),
    ("eval depth --world-model embeded", "did you mean"),
    ("eval depth --device cdua", "--device must be"),
    ("eval depth --out {there}/file", "--out must be a folder"),
    ("bench step --steps 0", "steps and vector must be at least 1"),
    ("bench read --sizes 0", "sizes, repeats, channels, height and width must be at least 1"),
    ("bench memory --chunks 0", "chunks must be at least 1"),
    ("bench counts --lengths 0", "lengths, ranks, prompt and steps must be at least 1"),
    ("bench counts --threads 0", "--threads must be at least 1"),
    ("bench counts --out {there}/file", "--out must be a folder"),
    ("bench full-size --chunks 1", "chunks must be at least 2"),
    ("bench full-size --device cdua", "--device must be"),
    ("bench full-size --device cpu --offload blocks", "offload must be None but for a CUDA device"),
    ("bench full-size --size 0 1280", "size must be multiples of 32, got 0x1280"),
    ("convert {there}/gone --to {there}/new", "source must be weights, got {there}/gone"),
    ("convert {there} --to {there}", "--to must be a new or empty folder"),
    ("convert {there} --to {there}/new --branch {there}/gone", "--branch must be a file"),
    ("encode {there}/gone --kind vipe --codec embedded --out x.h5", "source must be"),
    ("encode {there} --kind vipe --codec embeded --out x.h5", "--codec must be"),
    ("encode {there} --kind vipe --codec embedded --out x.h5 --frames 0", "--frames must be at least 1"),
    ("encode {there} --kind vipe --codec embedded --out x.h5 --part 2 2", "--part must be INDEX COUNT"),
    ("encode {there} --kind vipe --codec embedded --out {there}", "--out must be a file, got {there}, which"),
    ("encode {there} --kind realestate --codec embedded --out x.h5 --scale 0", "--scale must be a positive"),
    ("embed {there} --prompt room --out x", "must be a folder, got {there}/text_encoder"),
    ("results {there}/gone", "document must be a file"),
    ("results {there}/file --out {there}/gone", "--out must be a folder"),
]


def test_refused_arguments_import_nothing_heavy(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "done").mkdir()
    (tmp_path / "done" / "rollout.hdf5").write_text("")
    clips = tmp_path / "run" / "clips"
    clips.mkdir(parents=True)
    for split in ("train", "validation"):
        (clips / f"{split}-000.h5").write_text("")
    lines = [line.format(there=tmp_path).split() for line, _ in REFUSED]
    for (line, message), (code, last, heavy) in zip(REFUSED, outcomes(lines), strict=True):
        assert code == 2, line
        assert message.format(there=tmp_path) in last, line
        assert last.startswith("mirage-sim"), line
        assert heavy == [], line


PROGRAM = """
import sys, gymnasium, numpy, mirage_sim
env = gymnasium.make("Mirage/Explore-v0", action_mode="discrete")
env.reset(seed=0)
env.step(0)
unused = {"diffusers", "transformers", "peft", "accelerate", "torchvision", "torch._dynamo", "sympy"}
print(sorted(unused & set(sys.modules)))
"""


@pytest.fixture
def broken_torchvision(tmp_path: Path) -> Path:
    """A folder for PYTHONPATH with a torchvision that fits another torch."""
    package = tmp_path / "site" / "torchvision"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("from torchvision import _extension\n")
    (package / "_extension.py").write_text('raise RuntimeError("operator torchvision::nms does not exist")\n')
    about = tmp_path / "site" / "torchvision-0.1.0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: torchvision\nVersion: 0.1.0\n")
    return tmp_path / "site"


@pytest.mark.slow
def test_the_embedded_model_needs_neither_diffusers_nor_a_sound_torchvision(broken_torchvision: Path) -> None:
    paths = os.pathsep.join([str(broken_torchvision), os.environ.get("PYTHONPATH", "")])
    done = python(PROGRAM, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_broken_torchvision_is_named_where_diffusers_is_needed(broken_torchvision: Path) -> None:
    paths = os.pathsep.join([str(broken_torchvision), os.environ.get("PYTHONPATH", "")])
    program = (
        "from mirage_sim.checkpoints.shapes import wan_autoencoder\n"
        "from mirage_sim.errors import LibraryError\n"
        "try:\n    wan_autoencoder()\nexcept LibraryError as error:\n    print(error)\n"
    )
    done = python(program, PYTHONPATH=paths)
    assert done.returncode == 0, done.stderr
    told = done.stdout.strip().splitlines()[-1]
    assert "needs torchvision, which does not import here" in told
    assert "operator torchvision::nms does not exist" in told
