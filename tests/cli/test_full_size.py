"""Full size, from downloads to a trained model in the environment, by the commands of the docs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from mirage_sim.cli.main import EXIT_ERROR, main
from mirage_sim.cli.rollout import RECORDING
from mirage_sim.recording import HDF5Reader
from tests.full_size import write_full_size
from tests.sources.layouts import write_vipe
from tests.training.test_full_size import room_clip


@pytest.mark.slow
def test_downloads_become_a_trained_model_in_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_full_size(tmp_path / "wan")
    write_vipe(tmp_path / "videos", room_clip("walk", 0))

    def call(*words: str) -> None:
        assert main(list(words)) == 0

    small = ("--height", "64", "--width", "96", "--frames", "33")
    call("encode", "videos", "--kind", "vipe", "--codec", "wan", "--out", "clips.h5", *small)
    call("embed", "wan", "--prompt", "a room", "--out", "room.safetensors")
    files = ("--world-model", "wan", "--latents", "clips.h5", "--held-out", "clips.h5", "--out", "runs")
    short = ("--segment-length", "2", "--steps", "2", "--log-every", "1", "--prompts", "room.safetensors")
    assert main(["train", "lora", *files, *short]) == EXIT_ERROR  # no branch has been trained
    for stage in ("branch", "lora"):
        call("train", stage, *files, *short)
        lines = (tmp_path / "runs" / f"{stage}.jsonl").read_text().splitlines()
        assert [json.loads(line)["step"] for line in lines] == [1, 2]
    trained = ("--branch", "runs/memory_branch.safetensors", "--lora", "runs/lora.safetensors")
    call("convert", "wan", "--to", "ours", *trained)
    for part in ("depth_estimator", "text_encoder", "tokenizer"):
        shutil.copytree(tmp_path / "wan" / part, tmp_path / "ours" / part)
    settings = 'model_settings={"height": 64, "width": 96, "segment_length": 2}'
    rollout = ("rollout", "--world-model", "ours", "--steps", "2", "--out", "walk", "--env-arg", settings)
    call(*rollout, "--env-arg", "prompt=a room")
    assert len(HDF5Reader(tmp_path / "walk" / RECORDING).episodes) == 1
