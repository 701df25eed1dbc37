"""Saving and loading: bit for bit, whole or not at all, and nothing damaged is taken."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.memory import SpatialMemory
from mirage_sim.memory.store import load_state, save_state
from tests.memory.rooms import HW, box_depth, circle, intrinsics, latents, memory


def walked(steps: int = 6, **options: object) -> SpatialMemory:
    kept = memory(2, initial_capacity=64, **options)
    go_on(kept, 0, steps)
    return kept


def go_on(kept: SpatialMemory, start: int, stop: int) -> None:
    for step in range(start, stop):
        poses = torch.stack([circle(12)[step], circle(12, 2.0, 1)[step]])[:, None]
        kept.write(latents(step, 2, 1), box_depth(poses), poses, intrinsics(2, 1))


@pytest.mark.parametrize("dtype", ["float8", "float16", "bfloat16"])
def test_goes_on_bit_for_bit(tmp_path: Path, dtype: str) -> None:
    kept = walked(dtype=dtype, max_capacity=700)
    kept.save(tmp_path / "new" / "folder")
    again = SpatialMemory.load(tmp_path / "new" / "folder")
    assert again.config == kept.config
    for each in (kept, again):
        go_on(each, 6, 10)
    ours, theirs = kept.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name].double(), theirs[name].double()) for name in ours)
    pose = circle(12)[3].expand(2, 1, 4, 4)
    assert torch.equal(
        kept.read(pose, intrinsics(2, 1), HW).latents, again.read(pose, intrinsics(2, 1), HW).latents
    )


def test_an_empty_memory_is_saved_too(tmp_path: Path) -> None:
    memory().save(tmp_path)
    assert SpatialMemory.load(tmp_path).stats().entries.tolist() == [0]


def test_saving_again_replaces_and_leaves_nothing_behind(tmp_path: Path) -> None:
    kept = walked(2)
    kept.save(tmp_path)
    go_on(kept, 2, 4)
    kept.save(tmp_path)
    kept.save(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
    assert torch.equal(SpatialMemory.load(tmp_path).stats().entries, kept.stats().entries)


@pytest.mark.parametrize("failing_call", [1, 2, 3, 4])
def test_a_full_disk_leaves_the_last_save_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing_call: int
) -> None:
    kept = walked(2)
    kept.save(tmp_path)
    go_on(kept, 2, 4)
    calls, real = [0], os.fsync

    def fsync(handle: int) -> None:
        calls[0] += 1
        if calls[0] == failing_call:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OSError, match="No space left"):
        kept.save(tmp_path)
    monkeypatch.undo()
    expected = walked(2) if failing_call < 4 else kept
    assert torch.equal(SpatialMemory.load(tmp_path).stats().entries, expected.stats().entries)
    assert not list(tmp_path.glob(".*.part"))


def tensors_file(folder: Path) -> Path:
    return next(folder.glob("*.safetensors"))


def edit_header(folder: Path, **changes: object) -> None:
    path = folder / "spatial_memory.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_damage_is_refused(tmp_path: Path) -> None:
    kept = walked(2)

    def damaged(message: str) -> None:
        with pytest.raises(FileFormatError, match=message):
            SpatialMemory.load(tmp_path)
        kept.save(tmp_path)

    damaged("spatial_memory.json must be a readable file")
    tensors_file(tmp_path).unlink()
    damaged("must be a readable file")
    content = tensors_file(tmp_path).read_bytes()
    tensors_file(tmp_path).write_bytes(content[:-10])
    damaged("it is truncated")
    flipped = bytearray(content)
    flipped[-5] ^= 1
    tensors_file(tmp_path).write_bytes(bytes(flipped))
    damaged("it was changed")
    (tmp_path / "spatial_memory.json").write_text('{"kind": "spat')
    damaged("must be JSON")
    (tmp_path / "spatial_memory.json").write_bytes(b"\xff\xfe\x00")
    damaged("must be JSON")
    (tmp_path / "spatial_memory.json").write_text("[]")
    damaged("must hold")
    edit_header(tmp_path, schema_version=2)
    damaged("schema_version 1, got 2")
    edit_header(tmp_path, kind="photograph")
    damaged("of kind 'spatial_memory', got 'photograph'")
    edit_header(tmp_path, tensors="../elsewhere.safetensors")
    damaged("tensors must name a file in the folder")
    edit_header(tmp_path, about={"config": {"channels": 5}, "num_worlds": 2})
    damaged("must hold a spatial memory")
    edit_header(tmp_path, about={"config": {"colour": 5}, "num_worlds": 2})
    damaged("must hold a spatial memory")
    edit_header(tmp_path, about={})
    damaged("must hold a spatial memory")


def test_what_is_no_safetensors_file_is_refused_despite_its_hash(tmp_path: Path) -> None:
    import hashlib

    save_state(tmp_path, "thing", {"a": torch.ones(2)}, {})
    content = b"nothing of the kind"
    tensors_file(tmp_path).write_bytes(content)
    path = tmp_path / "thing.json"
    header = json.loads(path.read_text())
    header |= {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
    path.write_text(json.dumps(header))
    with pytest.raises(FileFormatError, match="must be safetensors"):
        load_state(tmp_path, "thing")


def test_tensors_of_every_kind_come_back(tmp_path: Path) -> None:
    tensors = {
        "bool": torch.tensor([True, False]),
        "int": torch.arange(5),
        "half": torch.rand(2, 3).bfloat16(),
        "empty": torch.zeros(2, 0, 3),
        "strided": torch.rand(3, 4).T,
    }
    save_state(tmp_path, "thing", tensors, {"a": 1})
    loaded, about = load_state(tmp_path, "thing")
    assert about == {"a": 1}
    assert all(torch.equal(loaded[name], value) for name, value in tensors.items())
    assert save({"a": torch.ones(1)})


@pytest.mark.parametrize(
    "name", ["clock", "entries.used", "entries.features", "keyframes.kept", "keyframes.depth"]
)
def test_a_state_that_does_not_fit_is_refused(name: str) -> None:
    kept = walked(2)
    state = kept.state_dict()
    with pytest.raises(InputError, match=name.split(".")[-1]):
        kept.load_state_dict({key: value for key, value in state.items() if key != name})
    with pytest.raises(InputError, match=name.split(".")[-1]):
        kept.load_state_dict({**state, name: state[name][:1]})
    if name != "clock":
        with pytest.raises(InputError, match=name.split(".")[-1]):
            kept.load_state_dict({**state, name: state[name].to(torch.complex64)})
