"""Files that would be misread silently: other units, colours for numbers, pictures lying on their side."""

from __future__ import annotations

import io
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mirage_sim.errors import FileFormatError
from mirage_sim.recording import HDF5Writer, make_env_args
from mirage_sim.sources import RecordingsSource, VipeSource
from mirage_sim.sources.video import index_video, read_frames
from tests.sources.layouts import make_clip, write_video, write_vipe


def test_depth_in_other_units_is_refused(tmp_path: Path) -> None:
    """Integers are millimetres as a rule; taken as metres, everything would be a thousand times as far."""
    walk, metres = make_clip(3), np.full((3, 32, 48), 2.0, np.float32)
    for name, depth in (
        ("mm", (1000 * metres).astype(np.uint16)),
        ("three", metres[..., None].repeat(3, axis=-1)),
    ):
        with HDF5Writer(tmp_path / f"{name}.h5", env_args=make_env_args("test")) as writer:
            frames = {"rgb": walk.frames, "depth": depth, "cam2world": walk.cam2world}
            writer.write_episode(frames, intrinsics=walk.intrinsics[0])
        with pytest.raises(FileFormatError, match=r"depth in floating-point metres \[F, h, w\], got"):
            RecordingsSource(tmp_path / f"{name}.h5").read(f"{name}/demo_0", 0, 2)


@pytest.mark.parametrize("mode", ["RGB", "LA"])
def test_a_mask_of_colours_is_refused(mode: str, tmp_path: Path) -> None:
    """An instance whose red is 0 would not be seen."""
    folder = write_vipe(tmp_path, make_clip(2, movable=np.ones((2, 32, 48), bool)))
    with zipfile.ZipFile(folder / "mask" / "walk.zip", "w") as archive:
        for number in range(2):
            content = io.BytesIO()
            Image.new("RGB", (48, 32), (0, 3, 0)).convert(mode).save(content, "PNG")
            archive.writestr(f"{number:05d}.png", content.getvalue())
    with pytest.raises(FileFormatError, match=f"one number a pixel, got mode {mode}"):
        VipeSource(folder).read("walk", 0, 2)


def test_depth_of_whole_numbers_in_exr_is_refused(tmp_path: Path) -> None:
    exr = pytest.importorskip("OpenEXR")
    folder = write_vipe(tmp_path, make_clip(2))
    (folder / "depth").mkdir()
    with zipfile.ZipFile(folder / "depth" / "walk.zip", "w") as archive:
        for number in range(2):
            path = tmp_path / "z.exr"
            channels = {"Z": np.full((32, 48), 2000, np.uint32)}
            exr.File({"compression": exr.ZIP_COMPRESSION, "type": exr.scanlineimage}, channels).write(
                str(path)
            )
            archive.write(path, f"{number:05d}.exr")
    with pytest.raises(FileFormatError, match="Z must hold floating-point metres, got uint32"):
        VipeSource(folder).read("walk", 0, 2)


def turned(path: Path, matrix: tuple[int, ...]) -> None:
    """Ask a player to turn an mp4: the matrix of its track header, in parts of 2^16."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("turns", "matrix"),
    [
        (3, (0, 1 << 16, 0, -(1 << 16), 0, 0, 32 << 16, 0, 1 << 30)),  # a quarter clockwise, as phones do
        (2, (-(1 << 16), 0, 0, 0, -(1 << 16), 0, 48 << 16, 32 << 16, 1 << 30)),
        (1, (0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 48 << 16, 1 << 30)),
    ],
)
def test_a_video_is_turned_as_it_is_shown(tmp_path: Path, turns: int, matrix: tuple[int, ...]) -> None:
    path = tmp_path / "phone.mp4"
    write_video(path, make_clip(5).frames)
    plain = read_frames(index_video(path), range(5))
    turned(path, matrix)
    shown = read_frames(index_video(path), range(5))
    np.testing.assert_array_equal(shown, np.rot90(plain, turns, axes=(1, 2)))
