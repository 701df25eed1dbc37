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
