"""Camera files gone there and back: reading frames, the figures, and the command on files of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation.config import TrajectoriesConfig
from mirage_sim.evaluation.trajectories import (
    Video,
    camera_figures,
    cut,
    evaluate_trajectories,
    loop_figures,
    read_sequence,
    trajectories_table,
    write_scene_sequences,
)
from mirage_sim.geometry import compose, from_yaw_pitch, make_intrinsics, project
from mirage_sim.recording.camera_file import CameraFile, read_cameras, write_cameras
from tests.models import tiny_world_model


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two scenes of three frames, as the project writes them."""
    where = tmp_path_factory.mktemp("sequences")
    write_scene_sequences(where, 2, 3, (24, 48), 0)
    return where


def test_frames_are_cut_and_their_lens_with_them(folder: Path) -> None:
    """A point keeps its place in the picture: of 24x48 the middle 24x24 stays, at 32/24 the size."""
    path = folder / "scene-000.txt"
    video = read_sequence(path, (32, 32), 2.0, 2)
    assert video.frames.shape == (2, 32, 32, 3)
    cameras = read_cameras(path)
    point = torch.tensor([[0.2, -0.1, 3.0]])  # in the first camera
    before = project(point, torch.eye(4), cameras.intrinsics(24, 48)[0])[0][0]
    after = project(point, torch.eye(4), video.intrinsics)[0][0]
    torch.testing.assert_close(after, (before - torch.tensor([12.0, 0.0])) * (32 / 24))
    first, second = video.cam2world
    assert first[:3, 3].tolist() == pytest.approx([0.0, 0.0, 1.4])
    moved = (cameras.cam2world[1, :3, 3] - cameras.cam2world[0, :3, 3]).norm()
    assert float((second - first)[:3, 3].norm()) == pytest.approx(2.0 * float(moved), abs=1e-5)


def test_a_cut_picture_is_its_middle() -> None:
    wide = np.zeros((20, 60, 3), np.uint8)
    wide[:, 20:40] = 200
    assert (cut(wide, (20, 20)) == 200).all()
    assert cut(wide, (40, 120)).shape == (40, 120, 3)


def test_a_perfect_return_reaches_the_cap() -> None:
    frames = np.random.default_rng(0).integers(0, 255, (3, 16, 16, 3), dtype=np.uint8)
    video = Video("v", frames, torch.eye(4).expand(3, 4, 4), make_intrinsics(16, 16, 75.0))
    whole = np.concatenate([frames, frames[-2::-1]])
    figures = loop_figures(video, whole)
    assert figures["psnr"] == figures["psnr_c"] == pytest.approx(60.0)
    assert figures["ssim_c"] == pytest.approx(1.0)
    whole[-1] = 255 - whole[-1]
    other = loop_figures(video, whole)
    assert other["psnr"] == pytest.approx(60.0)
    assert other["psnr_c"] < 20.0


def test_cameras_score_by_what_is_left_of_both_limits() -> None:
    wanted = from_yaw_pitch(
        torch.tensor([[0.0, 0, 0], [1.0, 0, 0], [2.0, 0, 0]]), torch.tensor([0.0, 0.1, 0.2])
    )
    shift = from_yaw_pitch(torch.tensor([3.0, -1.0, 2.0]), 1.0)
    same = compose(shift.expand_as(wanted), wanted)
    same[:, :3, 3] = shift[:3, 3] + 4.0 * (same[:, :3, 3] - shift[:3, 3])  # another frame and scale
    exact = camera_figures(wanted, same)
    assert exact["camera_score"] == pytest.approx(1.0, abs=1e-3)
    turned = wanted.clone()
    turned[1:, :3, :3] = from_yaw_pitch(torch.zeros(2, 3), torch.tensor([0.1, 0.2]) + np.radians(9.0))[
        :, :3, :3
    ]
    told = camera_figures(wanted, turned)
    assert told["rotation_error"] == pytest.approx(6.0, abs=0.01)  # 0, 9 and 9 degrees
    assert told["camera_score"] == pytest.approx(np.sqrt(1 - 6 / 15), abs=1e-3)
    assert camera_figures(wanted, wanted.flip(0))["camera_score"] == 0.0
    with pytest.raises(InputError, match="recovered must hold 3 cameras, got 2"):
        camera_figures(wanted, wanted[:2])


def test_the_whole_way(folder: Path, tmp_path: Path) -> None:
    model = tiny_world_model()
    for path in folder.glob("*.txt"):
        for method in ("latent", "none"):
            write_cameras(tmp_path / "found" / f"{path.stem}-{method}.txt", read_cameras(path))
    config = TrajectoriesConfig(folder, recovered=tmp_path / "found", frames=3)
    result = evaluate_trajectories(model, config, tmp_path / "out")
    figures = result["methods"]["latent"]
    assert figures["psnr_c"]["worlds"] == 2
    assert figures["camera_score"]["mean"] == pytest.approx(1.0, abs=1e-3)
    assert len(result["files"]) == 2
    assert "PSNR_C" in trajectories_table(result)


def test_what_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"must hold camera files \(\*\.txt\), got none"):
        evaluate_trajectories(tiny_world_model(), TrajectoriesConfig(tmp_path), tmp_path)
    cameras = read_cameras(folder / "scene-000.txt")
    path = write_cameras(tmp_path / "lost.txt", CameraFile("", [7], cameras.lens[:1], cameras.cam2world[:1]))
    with pytest.raises(FileFormatError, match=r"must hold a frame 7\.png"):
        read_sequence(path, (32, 32), 1.0, 5)
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "7.png").write_text("no picture")
    with pytest.raises(FileFormatError, match="must be an image"):
        read_sequence(path, (32, 32), 1.0, 5)
    with pytest.raises(InputError, match="scale must be positive"):
        TrajectoriesConfig(tmp_path, scale=0.0)


def test_hidden_files_are_no_cameras(tmp_path: Path) -> None:
    """Beside every file on a disk that macOS wrote lies one of the same name behind `._`."""
    (tmp_path / "._a.txt").write_bytes(b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X")
    with pytest.raises(FileFormatError, match=r"must hold camera files \(\*\.txt\), got none"):
        evaluate_trajectories(tiny_world_model(), TrajectoriesConfig(tmp_path), tmp_path / "out")


def test_frames_are_of_one_size(tmp_path: Path) -> None:
    (path,) = write_scene_sequences(tmp_path, 1, 2, (24, 32), seed=0)
    last = sorted((tmp_path / path.stem).iterdir(), key=lambda file: int(file.stem))[-1]
    Image.fromarray(np.zeros((12, 32, 3), np.uint8)).save(last)
    with pytest.raises(FileFormatError, match="frames of one size"):
        read_sequence(path, (16, 16), 1.0, 8)
    Image.fromarray(np.full((24, 32), 257 * 99, np.uint16)).save(last)
    assert (read_sequence(path, (16, 16), 1.0, 8).frames[-1] == 99).all()
