"""Readers: ViPE's two layouts, RealEstate10K and own recordings give the same cameras, depth and frames."""

from __future__ import annotations

import shutil
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mirage_sim.errors import FileFormatError, InputError, MissingExtraError
from mirage_sim.geometry import invert, make_intrinsics, project, relative, unproject
from mirage_sim.recording import HDF5Writer, make_env_args
from mirage_sim.recording.camera_file import CameraFile, write_cameras
from mirage_sim.scenes import make_scene
from mirage_sim.sources import PosedClip, RealEstateSource, RecordingsSource, VipeSource
from mirage_sim.sources.video import index_video, read_frames
from tests.sources.layouts import make_clip, write_video, write_vipe

HW = (64, 96)


@pytest.fixture(scope="module")
def walk() -> PosedClip:
    """Views of a furnished flat with true depth; something that may move in one corner."""
    lens = make_intrinsics(*HW, 75.0)
    with make_scene(5) as scene:
        poses = scene.plan_walk(np.random.default_rng(5), 10)
        views = [scene.render(pose, lens, HW) for pose in poses]
    movable = np.zeros((10, *HW), bool)
    movable[3:, :9, :7] = True
    return PosedClip(
        frames=np.stack([view.rgb for view in views]),
        depth=np.stack([view.depth for view in views]),
        movable=movable,
        cam2world=poses.numpy(),
        intrinsics=np.tile(lens.numpy(), (10, 1, 1)),
        fps=10.0,
        name="walk",
    )


@pytest.fixture(scope="module", params=["folders", "flat"])
def written(
    request: pytest.FixtureRequest, walk: PosedClip, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The walk as ViPE tells it: in the first camera's axes."""
    pytest.importorskip("OpenEXR")
    poses = torch.from_numpy(walk.cam2world)
    own = PosedClip(**vars(walk) | {"cam2world": relative(poses[:1].expand_as(poses), poses).numpy()})
    return write_vipe(tmp_path_factory.mktemp("vipe"), own, request.param == "flat")


@pytest.fixture
def vipe(written: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return shutil.copytree(written, tmp_path / "vipe")


def seen_again(clip: PosedClip, one: int, two: int) -> float:
    """Share of frame `one`'s points that frame `two` sees at the depth at which they are."""
    assert clip.depth is not None
    depth, poses, lens = (torch.from_numpy(part) for part in (clip.depth, clip.cam2world, clip.intrinsics))
    points = unproject(depth[one], poses[one], lens[one]).flatten(0, 1)
    uv, z = project(points, poses[two], lens[two])
    inside = (z > 0.05) & (uv >= 0).all(-1) & (uv < torch.tensor([HW[1], HW[0]])).all(-1)
    assert float(inside.float().mean()) > 0.3
    column, row = uv[inside].long().unbind(-1)
    there = depth[two][row, column]
    return float(((there - z[inside]).abs() < 0.03 * z[inside]).float().mean())


def test_poses_and_depth_fit_each_other(written: Path, walk: PosedClip) -> None:
    clip = VipeSource(written).read("walk", 0, 10)
    truth = [seen_again(walk, 0, other) for other in (1, 2, 3)]
    told = [seen_again(clip, 0, other) for other in (1, 2, 3)]
    assert min(truth) > 0.6
    np.testing.assert_allclose(told, truth, atol=0.02)
    inverted = invert(torch.from_numpy(clip.cam2world)).numpy()
    wrong = PosedClip(**vars(clip) | {"cam2world": inverted})
    assert seen_again(wrong, 0, 3) < truth[2] - 0.2


def test_everything_of_a_stretch_is_told(written: Path, walk: PosedClip) -> None:
    source = VipeSource(written)
    assert source.names() == ["walk"]
    assert source.length("walk") == 10
    clip = source.read("walk", 2, 4, 2)
    rows = slice(2, 9, 2)
    assert (clip.name, clip.fps, len(clip), clip.hw) == ("walk", 5.0, 4, HW)
    assert np.abs(clip.frames.astype(int) - walk.frames[rows]).mean() < 6  # a codec that halves colour
    assert clip.depth is not None
    assert walk.depth is not None
    assert walk.movable is not None
    near = walk.depth[rows] < 60_000
    np.testing.assert_allclose(clip.depth[near], walk.depth[rows][near], rtol=1e-3)
    np.testing.assert_array_equal(clip.movable, walk.movable[rows])
    np.testing.assert_allclose(clip.intrinsics, walk.intrinsics[rows])
    ours, theirs = (torch.from_numpy(part) for part in (clip.cam2world, walk.cam2world[rows]))
    torch.testing.assert_close(
        relative(ours[:1].expand_as(ours), ours),
        relative(theirs[:1].expand_as(ours), theirs),
        atol=1e-5,
        rtol=0,
    )
    assert float(clip.cam2world[:, 2, 1].max()) < -0.9  # upright


def test_unknown_depth_is_0_and_what_is_missing_is_none(tmp_path: Path) -> None:
    pytest.importorskip("OpenEXR")
    depth = np.full((4, 32, 48), 2.0, np.float32)
    clip = make_clip(4, depth=depth)
    depth[0, 0, :3] = [np.nan, np.inf, -1.0]
    write_vipe(tmp_path, clip)
    read = VipeSource(tmp_path).read("walk", 0, 4)
    assert read.depth is not None
    assert read.depth[0, 0, :4].tolist() == [0.0, 0.0, 0.0, 2.0]
    assert read.movable is None
    (tmp_path / "depth" / "walk.zip").unlink()
    assert VipeSource(tmp_path).read("walk", 0, 4).depth is None


def test_depth_without_its_library_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_vipe(tmp_path, make_clip(4))
    (tmp_path / "depth").mkdir()
    (tmp_path / "depth" / "walk.zip").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "OpenEXR", None)
    with pytest.raises(MissingExtraError, match=r"pip install .mirage-sim\[vipe\]"):
        VipeSource(tmp_path).read("walk", 0, 4)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def spoil(path: Path) -> None:
    """Change bytes in the middle of a zip's first member."""
    content = bytearray(path.read_bytes())
    content[80:120] = bytes(40)
    path.write_bytes(content)


def spoil_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start, stop = len(content) * 3 // 10, len(content) * 7 // 10
    content[start:stop] = np.random.default_rng(0).bytes(stop - start)
    path.write_bytes(content)


def lose_member(path: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()[1:]}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def pickled(path: Path) -> None:
    np.savez(path, data=np.array([{}] * 10, dtype=object), inds=np.arange(10))


def shorter(path: Path) -> None:
    with np.load(path) as file:
        rows = file["data"][:-1]
    np.savez(path, data=rows, inds=np.arange(len(rows)))


def gap(path: Path) -> None:
    with np.load(path) as file:
        rows = file["data"]
    np.savez(path, data=rows, inds=np.arange(len(rows)) + 1)


@pytest.mark.parametrize(
    ("kind", "damage"),
    [
        *(("depth", harm) for harm in (cut, spoil, lose_member)),
        *(("mask", harm) for harm in (cut, spoil, lose_member)),
        *(("pose", harm) for harm in (cut, pickled, gap)),
        *(("intrinsics", harm) for harm in (cut, shorter, Path.unlink)),
        ("video", spoil_middle),
        ("video", lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])),
        ("video", lambda path: path.write_bytes(b"no video")),
    ],
)
def test_damage_is_told_with_the_file(kind: str, damage: Any, vipe: Path) -> None:
    path = getattr(VipeSource(vipe).paths("walk"), kind)
    damage(path)
    with pytest.raises(FileFormatError) as told:
        VipeSource(vipe).read("walk", 0, 10)
    assert str(path) in str(told.value)


def test_what_does_not_fit_is_told(tmp_path: Path) -> None:
    folder = write_vipe(tmp_path / "a", make_clip(6, movable=np.zeros((6, 32, 48), bool)))
    write_video(folder / "rgb" / "walk.mp4", make_clip(5).frames)
    with pytest.raises(FileFormatError, match=r"walk\.mp4 must have the 6 frames of .*walk\.npz, got 5"):
        VipeSource(folder).read("walk", 0, 2)
    write_video(folder / "rgb" / "walk.mp4", make_clip(6, (32, 32)).frames)
    with pytest.raises(FileFormatError, match=r"walk\.zip must hold images \[32, 32\] as the video"):
        VipeSource(folder).read("walk", 0, 2)
    (folder / "intrinsics" / "walk_camera.txt").write_text("0: MEI\n")
    with pytest.raises(FileFormatError, match=r"must tell PINHOLE cameras only, got \['MEI'\]"):
        VipeSource(folder).read("walk", 0, 2)
    (folder / "intrinsics" / "walk_camera.txt").write_text("PINHOLE\n")
    with pytest.raises(FileFormatError, match="must hold lines"):
        VipeSource(folder).length("walk")
    (folder / "pose" / "other.npz").write_bytes(b"")  # a video that was not fetched
    assert VipeSource(folder).names() == ["walk"]
    with pytest.raises(InputError, match="name must be one of"):
        VipeSource(folder).length("other")
    with pytest.raises(FileFormatError, match="must hold rgb/<name>"):
        VipeSource(tmp_path)


def test_poses_that_are_not_rigid_are_refused(tmp_path: Path) -> None:
    write_vipe(tmp_path, make_clip(4))
    np.savez(tmp_path / "pose" / "walk.npz", data=np.ones((4, 4, 4), np.float32), inds=np.arange(4))
    with pytest.raises(FileFormatError, match=r"walk\.npz must hold rigid cam2world"):
        VipeSource(tmp_path).length("walk")


def test_frames_are_found_by_number(tmp_path: Path) -> None:
    """Wherever one begins: key frames every fourth, and frames that are stored before earlier ones."""
    clip = make_clip(21)
    write_video(tmp_path / "v.mp4", clip.frames, fps=16)
    index = index_video(tmp_path / "v.mp4")
    assert (len(index.times), index.fps) == (21, 16.0)
    for numbers in (range(21), range(3, 4), range(7, 20, 3), range(20, 21), range(4, 12, 2)):
        green = read_frames(index, numbers)[..., 1].mean(axis=(1, 2))
        np.testing.assert_allclose(green, clip.frames[list(numbers), 0, 0, 1], atol=3)


@pytest.fixture
def estate(walk: PosedClip, tmp_path: Path) -> Path:
    """The walk as RealEstate10K tells it: half as large, pictures by time."""
    poses = torch.from_numpy(walk.cam2world).clone()
    poses[:, :3, 3] *= 0.5
    lens = torch.from_numpy(walk.intrinsics[:, [0, 1, 0, 1], [0, 1, 2, 2]]) / torch.tensor([96, 64, 96, 64])
    times = [1_000_000 + 40_000 * number for number in range(10)]
    write_cameras(tmp_path / "cameras" / "ab.txt", CameraFile("there", times, lens, poses))
    (tmp_path / "frames" / "ab").mkdir(parents=True)
    for time, frame in zip(times, walk.frames, strict=True):
        Image.fromarray(frame).save(tmp_path / "frames" / "ab" / f"{time}.png")
    return tmp_path


def test_realestate_gives_the_walk(estate: Path, walk: PosedClip) -> None:
    source = RealEstateSource(estate / "cameras", estate / "frames", scale=2.0)
    assert source.names() == ["ab"]
    assert source.length("ab") == 10
    clip = source.read("ab", 1, 4, 2)
    rows = slice(1, 8, 2)
    np.testing.assert_array_equal(clip.frames, walk.frames[rows])
    np.testing.assert_allclose(clip.intrinsics, walk.intrinsics[rows], rtol=1e-5)
    assert (clip.depth, clip.movable, clip.fps) == (None, None, 12.5)
    ours, theirs = (torch.from_numpy(part) for part in (clip.cam2world, walk.cam2world[rows]))
    torch.testing.assert_close(
        relative(ours[:1].expand_as(ours), ours),
        relative(theirs[:1].expand_as(ours), theirs),
        atol=1e-4,
        rtol=0,
    )


def test_realestate_tells_what_is_wrong(estate: Path) -> None:
    source = RealEstateSource(estate / "cameras", estate / "frames")
    frames = estate / "frames" / "ab"
    (frames / "1040000.png").write_bytes(b"no picture")
    with pytest.raises(FileFormatError, match=r"1040000\.png must be an image"):
        source.read("ab", 0, 2)
    (frames / "1040000.png").unlink()
    with pytest.raises(FileFormatError, match="must hold a frame 1040000"):
        source.read("ab", 0, 2)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(frames / "1040000.jpg")
    with pytest.raises(FileFormatError, match="frames of one size"):
        source.read("ab", 0, 2)
    with pytest.raises(InputError, match="name must be one of"):
        source.length("cd")
    with pytest.raises(InputError, match="scale must be positive"):
        RealEstateSource(estate / "cameras", scale=0.0)
    with pytest.raises(FileFormatError, match="got 1 camera files and no such folder"):
        RealEstateSource(estate / "cameras")


def test_recordings_give_the_walk(walk: PosedClip, tmp_path: Path) -> None:
    assert walk.depth is not None
    path = tmp_path / "flats.h5"
    blocks = walk.depth[:, ::8, ::8]
    with HDF5Writer(path, env_args=make_env_args("test")) as writer:
        for key in ("rgb", "picture"):
            frames = {key: walk.frames, "depth": blocks, "cam2world": walk.cam2world}
            writer.write_episode(frames, intrinsics=walk.intrinsics[0])
    for place in (path, tmp_path):
        source = RecordingsSource(place, fps=8.0)
        assert source.names() == ["flats/demo_0", "flats/demo_1"]
        assert source.length("flats/demo_0") == 10
    clip = source.read("flats/demo_0", 3, 3, 2)
    rows = slice(3, 8, 2)
    np.testing.assert_array_equal(clip.frames, walk.frames[rows])
    np.testing.assert_array_equal(clip.cam2world, walk.cam2world[rows])
    np.testing.assert_array_equal(clip.intrinsics, walk.intrinsics[rows])
    assert clip.depth is not None
    np.testing.assert_array_equal(clip.depth[:, 4::8, 7::8], blocks[rows])
    assert (clip.movable, clip.fps) == (None, 4.0)
    with pytest.raises(FileFormatError, match="must hold rgb, cam2world and intrinsics of demo_1"):
        source.read("flats/demo_1", 0, 3)
    with pytest.raises(InputError, match="name must be one of"):
        source.length("flats/demo_2")
    with pytest.raises(FileFormatError, match="must hold recordings"):
        RecordingsSource(tmp_path / "nothing")


def test_realestate_scales_greys_of_16_bits(estate: Path, walk: PosedClip) -> None:
    for path in (estate / "frames" / "ab").iterdir():
        grey = np.asarray(Image.open(path).convert("L"))
        Image.fromarray(grey.astype(np.uint16) * 257).save(path)
    clip = RealEstateSource(estate / "cameras", estate / "frames").read("ab", 0, 10)
    truth = np.stack([np.asarray(Image.fromarray(frame).convert("L")) for frame in walk.frames])
    np.testing.assert_array_equal(clip.frames, truth[..., None].repeat(3, axis=-1))


def test_realestate_keeps_the_camera_of_a_file_without_a_source(estate: Path) -> None:
    before = RealEstateSource(estate / "cameras", estate / "frames").read("ab", 0, 10)
    path = estate / "cameras" / "ab.txt"
    path.write_text(path.read_text().split("\n", 1)[1])
    after = RealEstateSource(estate / "cameras", estate / "frames").read("ab", 0, 10)
    np.testing.assert_array_equal(after.cam2world, before.cam2world)
    np.testing.assert_array_equal(after.frames, before.frames)


APPLE_DOUBLE = b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        "


def litter(folder: Path) -> None:
    """Put macOS' companion beside every file and folder, and what else systems and editors leave behind."""
    for path in sorted(folder.rglob("*")):
        (path.parent / f"._{path.name}").write_bytes(APPLE_DOUBLE)
        (path.parent / ".DS_Store").write_bytes(APPLE_DOUBLE)
        if path.is_dir():
            (path / ".ipynb_checkpoints").mkdir(exist_ok=True)
            (path / "Thumbs.db").write_bytes(APPLE_DOUBLE)


def test_hidden_names_are_no_videos(written: Path, estate: Path, walk: PosedClip, tmp_path: Path) -> None:
    vipe = shutil.copytree(written, tmp_path / "copy")
    recordings = tmp_path / "recordings"
    recordings.mkdir()
    with HDF5Writer(recordings / "walk.h5", env_args=make_env_args("test")) as writer:
        frames = {"rgb": walk.frames, "cam2world": walk.cam2world}
        writer.write_episode(frames, intrinsics=walk.intrinsics[0])
    (recordings / "folder.h5").mkdir()
    litter(tmp_path)
    # Even companions that look like whole videos are none.
    shutil.copy(estate / "cameras" / "ab.txt", estate / "cameras" / "._ab.txt")
    (estate / "frames" / "._ab").unlink()
    (estate / "frames" / "._ab").mkdir()
    for source, name in (
        (VipeSource(vipe), "walk"),
        (RealEstateSource(estate / "cameras", estate / "frames"), "ab"),
        (RecordingsSource(recordings), "walk/demo_0"),
    ):
        assert source.names() == [name]
        assert len(source.read(name, 0, 4)) == 4
