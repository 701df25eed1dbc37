"""Pictures: every kind of image file becomes the frame that it shows, or is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mirage_sim.errors import FileFormatError
from mirage_sim.pictures import find_frame, read_picture

WIDE = np.arange(65536, dtype=np.uint16).reshape(256, 256)
COLOURS = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)


@pytest.mark.parametrize("ending", ["png", "tiff", "pgm"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_greys_of_16_bits_are_scaled(tmp_path: Path, ending: str, order: str) -> None:
    path = tmp_path / f"wide.{ending}"
    Image.fromarray(WIDE).save(path)
    if ending == "tiff" and order == ">":
        Image.fromarray(WIDE.astype(">u2")).save(path)
    picture = read_picture(path)
    assert (picture.shape, picture.dtype) == ((256, 256, 3), np.uint8)
    expected = np.round(WIDE * (255 / 65535)).astype(np.uint8)
    assert all(np.array_equal(picture[..., channel], expected) for channel in range(3))


def test_every_opaque_kind_is_the_frame_it_shows(tmp_path: Path) -> None:
    colours = Image.fromarray(COLOURS)
    grey = Image.fromarray(COLOURS[..., 0])
    opaque = colours.copy()
    opaque.putalpha(255)
    for name, image, shown in (
        ("rgb", colours, COLOURS),
        ("rgba", opaque, COLOURS),
        ("grey", grey, COLOURS[..., :1].repeat(3, axis=-1)),
        ("bit", grey.point(lambda value: 255 * (value > 99), mode="1"), 255 * (COLOURS[..., :1] > 99)),
        ("palette", colours.quantize(256), None),
    ):
        image.save(tmp_path / f"{name}.png")
        picture = read_picture(tmp_path / f"{name}.png")
        assert picture.shape == COLOURS.shape
        assert picture.flags.writeable
        truth = np.asarray(image.convert("RGB")) if shown is None else np.broadcast_to(shown, COLOURS.shape)
        assert np.array_equal(picture, truth), name


def clear_corner(mode: str) -> Image.Image:
    image = Image.fromarray(COLOURS).convert("RGBA")
    image.putpixel((0, 0), (10, 20, 30, 0))
    return image.convert(mode)


def with_key(image: Image.Image, path: Path, key: Any) -> None:
    image.save(path, transparency=key)


def test_transparent_pixels_are_refused(tmp_path: Path) -> None:
    clear_corner("RGBA").save(tmp_path / "rgba.png")
    clear_corner("LA").save(tmp_path / "la.png")
    clear_corner("RGBA").save(tmp_path / "rgba.webp", lossless=True)
    palette = Image.fromarray(COLOURS).quantize(16)
    with_key(palette, tmp_path / "palette.png", int(np.asarray(palette)[0, 0]))
    with_key(Image.fromarray(COLOURS), tmp_path / "key.png", tuple(COLOURS[0, 0].tolist()))
    paths = sorted(tmp_path.iterdir())
    assert len(paths) == 5
    for path in paths:
        with pytest.raises(FileFormatError, match=r"must be opaque, got transparent pixels"):
            read_picture(path)


def test_numbers_without_a_known_range_or_colour_space_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.random.default_rng(0).random((4, 4), np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.arange(16, dtype=np.int32).reshape(4, 4)).save(tmp_path / "long.tiff")
    Image.fromarray(COLOURS).convert("CMYK").save(tmp_path / "cmyk.jpg")
    Image.fromarray(COLOURS).convert("LAB").save(tmp_path / "lab.tiff")
    for path in tmp_path.iterdir():
        with pytest.raises(FileFormatError, match=r"must hold greys or RGB of 8 or 16 bits, got \w+ of mode"):
            read_picture(path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_they_are_shown(tmp_path: Path, orientation: int) -> None:
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:8, :8, 0] = 255  # a red corner at the top left
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(np.ascontiguousarray(stored)).save(tmp_path / "photo.png", exif=exif)
    assert np.array_equal(read_picture(tmp_path / "photo.png"), upright)


def test_damage_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    whole = path.read_bytes()
    for damaged in (b"", b"no picture", whole[: len(whole) // 2], whole[:40] + b"\0" * 60 + whole[100:]):
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=r"a\.png must be an image"):
            read_picture(path)
    with pytest.raises(FileFormatError, match="must be an image"):
        read_picture(tmp_path / "none.png")


def test_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.fromarray(WIDE.astype(np.uint8)).save(tmp_path / "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    with pytest.raises(FileFormatError, match="DecompressionBomb"):
        read_picture(tmp_path / "large.png")


def test_frames_are_found_by_time(tmp_path: Path) -> None:
    time = 2**53 + 1
    (tmp_path / f"{time}.webp").touch()
    assert find_frame(tmp_path, time).name == "9007199254740993.webp"
    with pytest.raises(FileFormatError, match="must hold a frame 9007199254740992"):
        find_frame(tmp_path, time - 1)
