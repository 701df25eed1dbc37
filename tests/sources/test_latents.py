"""Files of latents: what a clip becomes, going on after an interruption, and what is refused."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from torch import nn

from mirage_sim.errors import FileFormatError, InputError, InputTypeError, RecordingError
from mirage_sim.model.autoencoder import EmbeddedCodecConfig
from mirage_sim.model.codec import EmbeddedCodec, WanCodec
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.recording.crash_safe_file import CrashSafeFile
from mirage_sim.sources import EncodeConfig, LatentFile, codec_hash, encode_source, open_latents
from tests.models import wan21_autoencoder
from tests.sources.layouts import Memory, make_clip

CONFIG = EncodeConfig(height=32, width=48, frames=9)


@pytest.fixture(scope="module")
def wan() -> WanCodec:
    """8x in space, 4x in time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return WanCodec(wan21_autoencoder()).requires_grad_(False).eval()


@pytest.fixture(scope="module")
def embedded() -> EmbeddedCodec:
    """8x in space, every frame alone."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = EmbeddedCodecConfig(4, (8, 8, 16, 16), (8, 8, 16, 16), (0, 1, 1, 1), (0, 1, 1, 1))
        return EmbeddedCodec(config).requires_grad_(False).eval()


def whole(count: int = 9, hw: tuple[int, int] = (32, 48), name: str = "walk") -> Any:
    """A clip with depth that tells the frame, and one pixel that may move in frames 2 and 8."""
    depth = np.ones((count, *hw), np.float32) * np.arange(1, count + 1, dtype=np.float32)[:, None, None]
    movable = np.zeros((count, *hw), bool)
    movable[2::6, 17, 30] = True
    return make_clip(count, hw, name, depth=depth, movable=movable)


def test_a_clip_becomes_latents_of_its_last_pixel_frames(wan: WanCodec, tmp_path: Path) -> None:
    clip, path = whole(), tmp_path / "latents.h5"
    report = encode_source(Memory(clip), "test", wan, CONFIG, path)
    assert (report.clips, report.encoded, report.skipped) == (1, 1, {})
    reader = open_latents(path, codec_hash(wan))
    assert (len(reader), reader.settings.source, reader.settings.latent_shape) == (1, "test", (3, 4, 4, 6))
    read = reader.clip(0)
    assert (read.name, read.start, read.fps) == ("walk", 0, 10.0)
    expected = wan.encode(frames_to_tensor(clip.frames)[None])[0]
    assert read.latents.dtype == torch.float16
    torch.testing.assert_close(read.latents.float(), expected, atol=2e-3, rtol=2e-3)
    last = [0, 4, 8]
    assert read.depth is not None
    assert read.depth.shape == (3, 4, 6)
    assert read.depth[:, 0, 0].tolist() == [1.0, 5.0, 9.0]
    np.testing.assert_array_equal(read.cam2world, clip.cam2world[last])
    np.testing.assert_allclose(read.intrinsics, clip.intrinsics[last] * [[1 / 8], [1 / 8], [1]])
    # Pixel (17, 30) is in cell (2, 3); frame 2 is in the second latent frame, frame 8 in the third.
    assert (~read.keep).nonzero().tolist() == [[1, 2, 3], [2, 2, 3]]


def test_without_depth_and_mask_in_bf16(embedded: EmbeddedCodec, tmp_path: Path) -> None:
    clip, path = make_clip(5, (40, 64)), tmp_path / "latents.h5"
    config = replace(CONFIG, frames=5, dtype="bfloat16")
    encode_source(Memory(clip), "test", embedded, config, path)
    read = open_latents(path, codec_hash(embedded)).clip(0)
    assert (read.latents.dtype, tuple(read.latents.shape)) == (torch.bfloat16, (5, 4, 4, 6))
    assert read.depth is None
    assert bool(read.keep.all())
    with h5py.File(path) as file:
        assert file["data/walk@00000000/latents"].dtype == np.uint16
        assert file["data/walk@00000000/latents"].chunks == (1, 4, 4, 6)


def test_videos_are_cut_into_clips(embedded: EmbeddedCodec, tmp_path: Path) -> None:
    source = Memory(make_clip(23, name="b/a ü"), make_clip(9, name="short"), make_clip(11, name="c"))
    config = replace(CONFIG, frames=5, step=2)
    path = tmp_path / "one.h5"
    assert encode_source(source, "test", embedded, config, path).clips == 4
    with LatentFile(path) as reader:
        clips = [reader.clip(index) for index in range(len(reader))]
    assert [(clip.name, clip.start) for clip in clips] == [
        ("b/a ü", 0),
        ("b/a ü", 10),
        ("c", 0),
        ("short", 0),
    ]
    assert clips[1].cam2world[:, 0, 3].tolist() == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8])
    assert clips[0].fps == 5.0
    found = []
    for index in (0, 1):
        share = replace(config, every=3, part=(index, 2))
        part = tmp_path / f"part{index}.h5"
        encode_source(source, "test", embedded, share, part)
        found.append(LatentFile(part).keys)
    assert [key[-2:] for key in found[0]] == ["00", "03", "06", "09", "12", "00"]
    assert found[1] == ["short@00000000"]


class Failing(Memory):
    """Fails once, at the third read."""

    def read(self, *args: Any, **more: Any) -> Any:
        if self.reads == 2:
            self.reads += 1
            raise KeyboardInterrupt
        return super().read(*args, **more)


def test_an_interrupted_run_goes_on_with_the_missing_clips(wan: WanCodec, tmp_path: Path) -> None:
    clips = [whole(name=f"v{number}") for number in range(4)]
    path, other = tmp_path / "latents.h5", tmp_path / "at_once.h5"
    source = Failing(*clips)
    with pytest.raises(KeyboardInterrupt):
        encode_source(source, "test", wan, CONFIG, path)
    assert LatentFile(path).keys == ["v0@00000000", "v1@00000000"]
    with path.open("ab") as file:
        file.write(b"torn" * 1000)  # what a killed process leaves
    assert len(LatentFile(path)) == 2
    report = encode_source(source, "test", wan, CONFIG, path)
    assert (report.clips, report.encoded, source.reads) == (4, 2, 5)
    encode_source(Memory(*clips), "test", wan, CONFIG, other)
    assert LatentFile(path).keys == LatentFile(other).keys
    for index in range(4):
        one, two = LatentFile(path).clip(index), LatentFile(other).clip(index)
        for part in ("latents", "depth", "keep", "cam2world", "intrinsics"):
            assert torch.equal(getattr(one, part), getattr(two, part))
    assert encode_source(source, "test", wan, CONFIG, path).encoded == 0
    assert source.reads == 5


def test_a_clip_that_fails_while_it_is_written_leaves_nothing(
    wan: WanCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "latents.h5"
    encode_source(Memory(whole(name="a")), "test", wan, CONFIG, path)
    create = h5py.Group.create_dataset

    def fail(self: h5py.Group, name: str, *args: Any, **more: Any) -> Any:
        if name == "cam2world":
            raise MemoryError
        return create(self, name, *args, **more)

    both = Memory(whole(name="a"), whole(name="b"))
    with monkeypatch.context() as patch:
        patch.setattr(h5py.Group, "create_dataset", fail)
        with pytest.raises(MemoryError):
            encode_source(both, "test", wan, CONFIG, path)
    assert LatentFile(path).keys == ["a@00000000"]
    assert LatentFile(path).clip(0).name == "a"
    assert encode_source(both, "test", wan, CONFIG, path).encoded == 1


def test_another_codec_and_other_settings_are_refused(
    wan: WanCodec, embedded: EmbeddedCodec, tmp_path: Path
) -> None:
    path, source = tmp_path / "latents.h5", Memory(whole())
    encode_source(source, "test", wan, CONFIG, path)
    with pytest.raises(FileFormatError, match=r"must hold latents of the codec .*mirage-sim encode"):
        open_latents(path, codec_hash(embedded))
    with pytest.raises(InputError, match=r"must go on with the settings.*codec_sha256"):
        encode_source(source, "test", embedded, CONFIG, path)
    with pytest.raises(InputError, match=r"must go on with the settings.*'step': \(1, 2\)"):
        encode_source(source, "test", wan, replace(CONFIG, step=2), path)
    with pytest.raises(InputError, match="'source'"):
        encode_source(source, "other", wan, CONFIG, path)
    safe = CrashSafeFile(path)
    with pytest.raises(RecordingError, match="in use by another writer"):
        encode_source(source, "test", wan, CONFIG, path)
    safe.close()


def test_the_hash_is_of_the_weights_alone(wan: WanCodec, embedded: EmbeddedCodec) -> None:
    wide, narrow = nn.Linear(3, 2), nn.Linear(3, 2).bfloat16()
    narrow.load_state_dict(wide.state_dict())
    assert codec_hash(wide) == codec_hash(narrow)
    assert len({codec_hash(codec) for codec in (wan, embedded, wide)}) == 3
    before = codec_hash(wide)
    wide.weight.data[0, 0] += 0.5
    assert codec_hash(wide) != before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"height": 36}, "height and width must be multiples of 8"),
        ({"frames": 8}, r"frames must be 1 \+ 4k"),
        ({"step": 0}, "step and every must be at least 1"),
        ({"dtype": "float32"}, "dtype must be one of"),
        ({"part": (1, 1)}, "part must be"),
        ({"frames": 13}, "source must have a video of 13 frames"),
    ],
)
def test_wrong_settings_are_named(
    changes: dict[str, Any], message: str, wan: WanCodec, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        encode_source(Memory(whole()), "test", wan, replace(CONFIG, **changes), tmp_path / "latents.h5")


class Damaged(Memory):
    """One video whose length, and one whose frames cannot be read."""

    def length(self, name: str) -> int:
        if name == "b":
            raise FileFormatError("b.npz is damaged")
        return super().length(name)

    def read(self, name: str, *args: Any, **more: Any) -> Any:
        if name == "c":
            raise FileFormatError("c.mp4 is damaged")
        return super().read(name, *args, **more)


def test_damaged_videos_are_an_error_or_told(embedded: EmbeddedCodec, tmp_path: Path) -> None:
    source, path = Damaged(*(make_clip(name=name) for name in "abcd")), tmp_path / "latents.h5"
    with pytest.raises(FileFormatError, match=r"b\.npz is damaged"):
        encode_source(source, "test", embedded, CONFIG, path)
    report = encode_source(source, "test", embedded, replace(CONFIG, skip_damaged=True), path)
    assert (report.clips, sorted(report.skipped)) == (2, ["b", "c@00000000"])
    assert LatentFile(path).keys == ["a@00000000", "d@00000000"]


def test_codecs_that_are_none_or_fail_are_named(embedded: EmbeddedCodec, tmp_path: Path) -> None:
    source = Memory(make_clip())
    with pytest.raises(InputTypeError, match=r"codec must be a torch\.nn\.Module"):
        encode_source(source, "test", object(), CONFIG, tmp_path / "a.h5")  # type: ignore[arg-type]
    broken = pickle.loads(pickle.dumps(embedded))  # noqa: S301
    broken.latent_std.fill_(1e-9)
    with pytest.raises(InputError, match="with values that float16 cannot hold"):
        encode_source(source, "test", broken, CONFIG, tmp_path / "b.h5")
    with pytest.raises(RecordingError, match="folder that exists"):
        encode_source(source, "test", embedded, CONFIG, tmp_path / "none" / "c.h5")


def test_files_that_are_none_are_named(embedded: EmbeddedCodec, tmp_path: Path) -> None:
    text, other, path = tmp_path / "text.h5", tmp_path / "other.h5", tmp_path / "latents.h5"
    text.write_text("no latents")
    with h5py.File(other, "w") as file:
        file.create_group("data")
    for bad, message in ((text, "readable HDF5"), (other, "must be mirage_sim latents"), (path, "no file")):
        with pytest.raises(FileFormatError, match=message):
            LatentFile(bad)
    encode_source(Memory(make_clip()), "test", embedded, CONFIG, path)
    reader = pickle.loads(pickle.dumps(LatentFile(path)))  # noqa: S301
    assert reader.clip(0).name == "walk"
    for index in (-1, 1):
        with pytest.raises(InputError, match="index must be within the 1 clips"):
            reader.clip(index)
    with h5py.File(path, "r+") as file:
        del file["data/walk@00000000/keep"]
    with pytest.raises(FileFormatError, match="has a damaged clip walk@00000000"):
        reader.clip(0)
    with h5py.File(path, "r+") as file:
        file.attrs["settings"] = "{}"
    with pytest.raises(FileFormatError, match="must tell its settings"):
        LatentFile(path)


@pytest.mark.filterwarnings("error")
def test_clips_of_read_only_and_reversed_arrays(embedded: EmbeddedCodec, tmp_path: Path) -> None:
    """As memory maps and views of a user's own source are."""
    clip = whole(9)
    parts = {name: value for name, value in vars(clip).items() if isinstance(value, np.ndarray)}
    reversed_ = {name: np.ascontiguousarray(value[::-1])[::-1] for name, value in parts.items()}
    for value in reversed_.values():
        value.flags.writeable = False
    files = []
    for name, source in (("plain", clip), ("strange", replace(clip, **reversed_))):
        config = EncodeConfig(32, 48, 9)
        encode_source(Memory(source), "memory", embedded, config, tmp_path / f"{name}.h5")
        files.append(LatentFile(tmp_path / f"{name}.h5").clip(0))
    for name, value in vars(files[0]).items():
        other = getattr(files[1], name)
        assert torch.equal(value, other) if isinstance(value, torch.Tensor) else value == other
    with pytest.raises(InputTypeError, match="cam2world must be an array, got Tensor"):
        replace(clip, cam2world=torch.from_numpy(clip.cam2world))
