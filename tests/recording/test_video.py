"""Videos and contact sheets, read back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from mirage_sim.errors import FileWriteError, InputError
from mirage_sim.recording import contact_sheet, write_mp4, write_png


def smooth_frames(count: int, height: int = 48, width: int = 64) -> list[np.ndarray[Any, Any]]:
    y, x = np.mgrid[:height, :width]
    return [
        np.stack([3 * x, 4 * y, np.full_like(x, 8 * i)], -1).clip(0, 255).astype(np.uint8)
        for i in range(count)
    ]


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_a_video_holds_the_frames(tmp_path: Path, size: tuple[int, int]) -> None:
    frames = smooth_frames(12, *size)
    write_mp4(tmp_path / "a.mp4", iter(frames), fps=12.5)
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.streams.video[0].average_rate or 0) == pytest.approx(12.5)
        decoded = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(decoded) == 12
    for got, expected in zip(decoded, frames, strict=True):
        assert got.shape == (48, 64, 3)
        difference = got[: size[0], : size[1]].astype(int) - expected
        assert np.abs(difference).mean() < 6


def test_a_sheet_puts_each_frame_in_its_place(tmp_path: Path) -> None:
    frames = [np.full((4, 6, 3), i, np.uint8) for i in range(5)]
    sheet = contact_sheet(frames, columns=3)
    assert sheet.shape == (4 * 2 + 2, 6 * 3 + 4, 3)
    for i in range(5):
        y, x = i // 3 * 6, i % 3 * 8
        assert (sheet[y : y + 4, x : x + 6] == i).all()
    assert (sheet[6:, 16:] == 255).all()
    assert contact_sheet(frames[:2]).shape == (4, 14, 3)
    write_png(tmp_path / "a.png", sheet)
    assert np.array_equal(np.asarray(Image.open(tmp_path / "a.png")), sheet)


def broken_frames() -> Iterator[np.ndarray[Any, Any]]:
    yield from smooth_frames(3)
    raise ZeroDivisionError


def test_no_half_written_file_is_left(tmp_path: Path) -> None:
    target = tmp_path / "a.mp4"
    target.write_text("before")
    with pytest.raises(ZeroDivisionError):
        write_mp4(target, broken_frames())
    with pytest.raises(InputError, match="one size"):
        write_mp4(target, [*smooth_frames(2), np.zeros((8, 8, 3), np.uint8)])
    assert target.read_text() == "before"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.mp4"]
    with pytest.raises(FileWriteError, match="could not be written"):
        write_mp4(tmp_path / "missing" / "a.mp4", smooth_frames(2))


@pytest.mark.parametrize(
    "frames", [[], [np.zeros((4, 4), np.uint8)], [np.zeros((4, 4, 3))], [np.zeros((0, 4, 3), np.uint8)]]
)
def test_other_frames_are_refused(tmp_path: Path, frames: list[np.ndarray[Any, Any]]) -> None:
    for use in (lambda: contact_sheet(frames), lambda: write_mp4(tmp_path / "a.mp4", frames)):
        with pytest.raises(InputError, match="frames must"):
            use()
    with pytest.raises(InputError, match="columns"):
        contact_sheet(smooth_frames(1), columns=0)
    with pytest.raises(InputError, match="fps"):
        write_mp4(tmp_path / "a.mp4", smooth_frames(1), fps=0)
    assert not list(tmp_path.iterdir())
