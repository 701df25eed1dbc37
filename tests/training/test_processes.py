"""Training at full size by two processes that `accelerate launch` starts, on the CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.full_size import write_full_size
from tests.training.test_full_size import encode, room_clip

LAUNCH = (
    *("-m", "accelerate.commands.accelerate_cli", "launch", "--multi_gpu", "--num_machines", "1"),
    *("--num_processes", "2", "--mixed_precision", "bf16", "--dynamo_backend", "no"),
    *("-m", "mirage_sim.cli.main", "train"),
)
SHORT = ("--segment-length", "2", "--log-every", "1", "--validate-every", "1", "--seed", "1")
FAST = ("--accumulate", "2", "--learning-rate", "0.5")  # of which the first steps take a hundredth


def launch(place: Path, out: str, *options: str) -> subprocess.CompletedProcess[str]:
    files = ("--world-model", "wan", "--latents", "clips.h5", "--held-out", "clips.h5")
    return subprocess.run(
        [sys.executable, *LAUNCH, *options, *files, *SHORT, *FAST, "--out", out],
        cwd=place,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_whole_and_divided_weights_learn_the_same(tmp_path: Path) -> None:
    folder = write_full_size(tmp_path / "wan")
    encode(folder, tmp_path / "clips.h5", room_clip("a", 0), room_clip("b", 1))
    branch = ("--branch", "whole/memory_branch.safetensors")
    for stage, name, more in (("branch", "memory_branch", ()), ("lora", "lora", branch)):
        for out, options in (("whole", ()), ("parts", ("--shard",))):
            done = launch(tmp_path, out, stage, "--steps", "2", *more, *options)
            assert done.returncode == 0, done.stderr
            kept = tmp_path / out / stage / "00000002"
            assert len(list(kept.glob("*.safetensors"))) == (2 if options else 1)
        whole, parts = (load_file(tmp_path / out / f"{name}.safetensors") for out in ("whole", "parts"))
        assert whole.keys() == parts.keys()
        apart = torch.cat([(whole[key] - parts[key]).abs().flatten() for key in whole])
        # Adam divides by a gradient's size, so rounding shows where a gradient is close to 0.
        assert float((apart > 1e-6).float().mean()) < 0.02
        assert float(apart.max()) < 1e-4
        learnt = (
            "vace_blocks.0.after_proj.weight" if stage == "branch" else next(k for k in whole if "_B." in k)
        )
        assert float(whole[learnt].abs().max()) > 5e-3  # began at 0
        logs = [(tmp_path / out / f"{stage}.jsonl").read_text().splitlines() for out in ("whole", "parts")]
        first, second = (json.loads(log[-1]) for log in logs)
        assert first == pytest.approx(second, rel=1e-4)
    # Nothing is left to do, and that is what it does; another length is refused.
    again = launch(tmp_path, "parts", "branch", "--steps", "2", "--shard")
    assert again.returncode == 0, again.stderr
    refused = launch(tmp_path, "parts", "branch", "--steps", "3", "--shard")
    assert refused.returncode != 0
    assert "name another folder or delete the checkpoint" in refused.stderr
