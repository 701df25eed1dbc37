"""encode: a folder of posed video, a codec of any world model, and a file of latents."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim import load_world_model
from mirage_sim.checkpoints import build_codec, open_checkpoint
from mirage_sim.cli.main import EXIT_ERROR
from mirage_sim.cli.rollout import RECORDING
from mirage_sim.model.generator import Generator
from mirage_sim.recording.camera_file import CameraFile, write_cameras
from mirage_sim.sources import codec_hash, open_latents
from tests.checkpoints.official import TINY
from tests.cli.conftest import Run
from tests.models import save_backbone, wan21_autoencoder
from tests.sources.layouts import make_clip, write_vipe


@pytest.fixture(scope="module")
def full_size(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A diffusers folder."""
    folder = tmp_path_factory.mktemp("weights")
    save_backbone(Generator(TINY), folder / "transformer")
    wan21_autoencoder().save_pretrained(folder / "vae")
    return folder


def test_vipe_with_the_codec_of_full_size_weights(run: Run, full_size: Path, tmp_path: Path) -> None:
    folder = write_vipe(tmp_path / "videos", make_clip(11, movable=np.zeros((11, 32, 48), bool)))
    words = ["--kind", "vipe", "--codec", full_size, "--out", tmp_path / "l.h5"]
    sizes = ["--height", 32, "--width", 48, "--frames", 5, "--dtype", "bfloat16"]
    code, told, _ = run("encode", folder, *words, *sizes)
    assert (code, told["clips"], told["encoded"], told["skipped"]) == (0, 2, 2, {})
    reader = open_latents(tmp_path / "l.h5", codec_hash(build_codec(open_checkpoint(full_size))))
    assert reader.settings.source == "vipe:videos"
    assert reader.clip(1).latents.shape == (2, 4, 4, 6)
    code, told, _ = run("encode", folder, *words, *sizes)
    assert (code, told["clips"], told["encoded"]) == (0, 2, 0)
    code, _, err = run("encode", folder, *words, "--height", 32, "--width", 48, "--frames", 9)
    assert code == EXIT_ERROR
    assert "must go on with the settings" in err


def test_recordings_with_the_codec_of_a_world_model(
    run: Run, model_folder: Path, rolled: Path, tmp_path: Path
) -> None:
    words = ["--kind", "recordings", "--codec", model_folder, "--out", tmp_path / "l.h5", "--fps", 8]
    code, told, err = run(
        "encode", rolled / RECORDING, *words, "--height", 32, "--width", 32, "--frames", 3, "--part", 0, 2
    )
    assert code == 0, err
    assert told["clips"] == 2  # of the first of two episodes of seven frames
    clip = open_latents(tmp_path / "l.h5", codec_hash(load_world_model(model_folder).codec)).clip(0)
    assert (clip.fps, tuple(clip.latents.shape)) == (8.0, (3, 4, 4, 4))


def test_realestate(run: Run, model_folder: Path, tmp_path: Path) -> None:
    clip = make_clip(4)
    lens = torch.tensor([[0.8, 1.2, 0.5, 0.5]]).repeat(4, 1)
    times = [0, 40_000, 80_000, 120_000]
    write_cameras(
        tmp_path / "c" / "v.txt", CameraFile("there", times, lens, torch.from_numpy(clip.cam2world))
    )
    (tmp_path / "f" / "v").mkdir(parents=True)
    for time, frame in zip(times, clip.frames, strict=True):
        Image.fromarray(frame).save(tmp_path / "f" / "v" / f"{time}.png")
    words = ["--kind", "realestate", "--codec", model_folder, "--out", tmp_path / "l.h5", "--scale", 3]
    more = ["--frames-folder", tmp_path / "f", "--height", 32, "--width", 32, "--frames", 2, "--step", 2]
    code, told, err = run("encode", tmp_path / "c", *words, *more)
    assert (code, told.get("clips")) == (0, 1), err
    read = open_latents(tmp_path / "l.h5", codec_hash(load_world_model(model_folder).codec)).clip(0)
    assert float(read.cam2world[1, 0, 3]) == pytest.approx(0.6, abs=1e-4)


def test_a_folder_of_nothing_is_named(run: Run, tmp_path: Path) -> None:
    words = ["--codec", "embedded", "--out", tmp_path / "l.h5"]
    for kind in ("vipe", "realestate", "recordings"):
        code, _, err = run("encode", tmp_path, "--kind", kind, *words)
        assert code == EXIT_ERROR
        assert str(tmp_path) in err
    folder = write_vipe(tmp_path / "v", make_clip(2))
    code, _, err = run("encode", folder, "--kind", "vipe", "--codec", tmp_path, "--out", tmp_path / "l.h5")
    assert code == EXIT_ERROR
    assert "must hold model.json or full-size weights" in err
    assert not (tmp_path / "l.h5").exists()
