"""Camera files of RealEstate10K's format: a line worked out by hand, round trips, and damaged files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.geometry import from_yaw_pitch
from mirage_sim.recording.camera_file import CameraFile, read_cameras, write_cameras

LENS = "0.5 0.8889 0.5 0.5 0 0"


def test_a_line_written_by_hand(tmp_path: Path) -> None:
    """A camera two units to the right of the origin: world2cam moves everything two units to the left."""
    path = tmp_path / "a.txt"
    path.write_text(f"https://example.org/video\n62500 {LENS} 1 0 0 -2 0 1 0 0 0 0 1 0\n\n")
    cameras = read_cameras(path)
    assert cameras.source == "https://example.org/video"
    assert cameras.timestamps == [62500]
    assert cameras.cam2world[0, :3, 3].tolist() == [2.0, 0.0, 0.0]
    matrix = cameras.intrinsics(360, 640)[0]
    assert matrix[0, 0] == pytest.approx(320.0)
    assert matrix[1, 1] == pytest.approx(320.0, abs=0.1)
    assert matrix[:2, 2].tolist() == [320.0, 180.0]


@given(st.integers(0, 1000), st.integers(1, 5))
def test_what_is_written_is_read(tmp_path_factory: pytest.TempPathFactory, seed: int, count: int) -> None:
    chance = torch.Generator().manual_seed(seed)
    position = 5 * torch.randn(count, 3, generator=chance)
    yaw, pitch = torch.randn(2, count, generator=chance)
    poses = from_yaw_pitch(position, yaw, pitch.clamp(-1, 1))
    given_ = CameraFile("a\nb", list(range(count)), torch.rand(count, 4, generator=chance), poses)
    told = read_cameras(write_cameras(tmp_path_factory.mktemp("cameras") / "c.txt", given_))
    assert told.source == "a b"
    assert told.timestamps == given_.timestamps
    torch.testing.assert_close(told.lens, given_.lens, atol=1e-6, rtol=0)
    torch.testing.assert_close(told.cam2world, poses, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source\n", "at least one camera"),
        ("source\n1 2 3\n", "line 2, must hold 19 numbers, got 3"),
        (f"source\n1 {LENS} 1 0 0 0 0 1 0 0 0 0 x 0\n", "line 2, must hold numbers"),
        (f"source\n1 {LENS} 2 0 0 0 0 1 0 0 0 0 1 0\n", "must hold rigid cameras"),
    ],
)
def test_damaged_files_are_named(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_text(text)
    with pytest.raises(FileFormatError, match=message):
        read_cameras(path)
    with pytest.raises(FileFormatError, match="must be a camera file"):
        read_cameras(tmp_path / "none.txt")


def test_parts_of_different_length_leave_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="lens must be"):
        write_cameras(
            tmp_path / "c.txt", CameraFile("", [0, 1], torch.zeros(1, 4), torch.eye(4).expand(2, 4, 4))
        )
    assert not list(tmp_path.iterdir())


CAMERA = f"{LENS} 1 0 0 -2 0 1 0 0 0 0 1 0"


@pytest.mark.parametrize("start", ["", "\ufeff"])
def test_a_file_without_a_source_keeps_its_first_camera(tmp_path: Path, start: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"{start}62500 {CAMERA}\n125000 {CAMERA}\n", encoding="utf-8")
    cameras = read_cameras(path)
    assert (cameras.source, cameras.timestamps) == ("", [62500, 125000])
    assert cameras.cam2world.shape == (2, 4, 4)
    path.write_text(f"{start}https://example.org/v?t=1 2\n62500 {CAMERA}\n", encoding="utf-8")
    assert read_cameras(path).source == "https://example.org/v?t=1 2"


@pytest.mark.parametrize(
    ("first", "message"),
    [
        (f"62500 {CAMERA.rsplit(' ', 1)[0]}", "line 1, must hold 19 numbers, got 18"),
        (f"62500 {CAMERA} 7", "line 1, must hold 19 numbers, got 20"),
        (f"6250O {CAMERA}", "line 1, must hold numbers, got the timestamp '6250O'"),
        (f"62500 {CAMERA.replace('0.8889', '0,8889')}", "line 1, must hold numbers"),
    ],
)
def test_a_damaged_first_camera_is_no_source(tmp_path: Path, first: str, message: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"{first}\n125000 {CAMERA}\n")
    with pytest.raises(FileFormatError, match=message):
        read_cameras(path)


def test_timestamps_keep_every_digit(tmp_path: Path) -> None:
    times = [1_700_000_000_000_000_001, 2**53 + 1, -(2**63) + 1]
    path = tmp_path / "a.txt"
    path.write_text("source\n" + "".join(f"{time} {CAMERA}\n" for time in times))
    assert read_cameras(path).timestamps == times
    assert read_cameras(write_cameras(tmp_path / "b.txt", read_cameras(path))).timestamps == times
    for word in ("62500.000", "6.25e4"):
        path.write_text(f"source\n{word} {CAMERA}\n")
        assert read_cameras(path).timestamps == [62500]
    for word in ("0.033", "nan", "inf", "1e30", "x"):
        path.write_text(f"source\n{word} {CAMERA}\n")
        with pytest.raises(FileFormatError, match="line 2, must hold numbers, got the timestamp"):
            read_cameras(path)


@pytest.mark.parametrize("lens", ["nan 0.5 0.5 0.5", "0 0.5 0.5 0.5", "0.5 0.5 inf 0.5"])
def test_a_lens_must_be_usable(tmp_path: Path, lens: str) -> None:
    path = tmp_path / "a.txt"
    path.write_text(f"source\n1 {lens} 0 0 1 0 0 0 0 1 0 0 0 0 1 0\n")
    with pytest.raises(FileFormatError, match="positive focal lengths and finite centres"):
        read_cameras(path)


def test_a_source_that_looks_like_a_camera_is_not_written(tmp_path: Path) -> None:
    cameras = CameraFile("3 4", [0], torch.full((1, 4), 0.5), torch.eye(4)[None])
    with pytest.raises(InputError, match="source must not be a line of numbers, got '3 4'"):
        write_cameras(tmp_path / "c.txt", cameras)
