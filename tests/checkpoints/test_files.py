"""Files: every kind is read in its types, damaged and dangerous ones are refused, folders appear whole."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from mirage_sim.checkpoints.files import apart, find_weights, read_tensors, split, write_shards
from mirage_sim.errors import FileFormatError, FileWriteError, InputError
from mirage_sim.files import whole_folder
from tests.checkpoints.official import mixed, same


def some() -> dict[str, Tensor]:
    chance = torch.Generator().manual_seed(0)
    return mixed({f"layer.{index}.weight": torch.randn(4, 4, generator=chance) for index in range(5)})


def write_sharded(folder: Path, **changes: Any) -> Path:
    tensors = some()
    written = write_shards(tensors, folder, "model", 100)
    assert len(written) > 1
    places = {name: file for file, names in written.items() for name in names} | changes
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": places}))
    return index


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin"])
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("wrapped", [(), ("state_dict",), ("generator", "vace")])
def test_pytorch_files(tmp_path: Path, ending: str, zipped: bool, wrapped: tuple[str, ...]) -> None:
    stored: Any = some()
    for key in reversed(wrapped):
        stored = {key: stored}
    path = tmp_path / f"model{ending}"
    torch.save(stored, path, _use_new_zipfile_serialization=zipped)
    assert same(read_tensors(path), some())


def test_one_safetensors_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file(some(), path)
    assert same(read_tensors(path), some())


def test_several_safetensors_files(tmp_path: Path) -> None:
    assert same(read_tensors(write_sharded(tmp_path)), some())


class Evil:
    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cannot_run_code(tmp_path: Path, zipped: bool) -> None:
    path, target = tmp_path / "model.pth", tmp_path / "made"
    torch.save({"weight": Evil(target)}, path, _use_new_zipfile_serialization=zipped)
    with pytest.raises(FileFormatError, match="must be a PyTorch file of weights only"):
        read_tensors(path)
    path.write_bytes(pickle.dumps({"weight": Evil(target)}, protocol=2))
    with pytest.raises(FileFormatError, match="must be a PyTorch file of weights only"):
        read_tensors(path)
    assert not target.exists()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        ([torch.zeros(1)], "must hold tensors by name, got list"),
        ({"weight": torch.zeros(1), "step": 3, "lr": 0.1}, "nothing but tensors by name, got also step, lr"),
        ({"model": {}, "optimizer": {}}, "got also model, optimizer"),
    ],
)
def test_more_than_tensors_is_refused(tmp_path: Path, stored: Any, said: str) -> None:
    torch.save(stored, tmp_path / "model.pth")
    with pytest.raises(FileFormatError, match=said):
        read_tensors(tmp_path / "model.pth")


@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_torn_files_are_refused(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"model{ending}"
    if ending == ".pth":
        torch.save(some(), path)
    else:
        save_file(some(), path)
    whole = path.read_bytes()
    for length in (0, 5, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match="must be a"):
            read_tensors(path)


def test_other_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="must be a file, got none"):
        read_tensors(tmp_path / "model.safetensors")
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    with pytest.raises(FileFormatError, match=r"must end in \.safetensors"):
        read_tensors(tmp_path / "model.gguf")


def test_an_index_must_tell_the_truth(tmp_path: Path) -> None:
    index = write_sharded(tmp_path, **{"layer.7.weight": "model-00001-of-00003.safetensors"})
    places = json.loads(index.read_text())["weight_map"]
    del places["layer.0.weight"]
    index.write_text(json.dumps({"weight_map": places}))
    with pytest.raises(FileFormatError) as told:
        read_tensors(index)
    assert "layer.7.weight not in model-00001" in str(told.value)
    assert "layer.0.weight in model-00001-of-00003.safetensors without being listed" in str(told.value)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        "{}",
        '{"weight_map": {"a": 1}}',
        '{"weight_map": {"a": "../model.safetensors"}}',
        '{"weight_map": {"a": "gone.safetensors"}}',
    ],
)
def test_a_broken_index_is_refused(tmp_path: Path, text: str) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(text)
    with pytest.raises(FileFormatError, match="must"):
        read_tensors(index)


def test_weights_are_found_if_there_is_one_way_to_read_them(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=r"must hold one of .*, got \[\]"):
        find_weights(tmp_path)
    single = tmp_path / "diffusion_pytorch_model.safetensors"
    save_file(some(), single)
    assert find_weights(tmp_path) == single
    (tmp_path / "diffusion_pytorch_model.safetensors.index.json").write_text("{}")
    with pytest.raises(FileFormatError, match=r"must hold one of"):
        find_weights(tmp_path)


def test_shards_keep_order_and_limit() -> None:
    tensors = {
        name: torch.zeros(size, dtype=torch.uint8)
        for name, size in zip("abcde", (4, 4, 9, 1, 2), strict=True)
    }
    assert [list(shard) for shard in split(tensors, 8)] == [["a", "b"], ["c"], ["d", "e"]]
    assert split({}, 8) == [{}]


def test_tensors_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    whole = torch.arange(12.0).reshape(3, 4)
    shared = {"whole": whole, "again": whole, "row": whole[1], "turned": whole.T}
    save_file(apart(shared), tmp_path / "model.safetensors")
    assert same(load_file(tmp_path / "model.safetensors"), shared)
    assert apart({"whole": whole})["whole"] is whole


@pytest.mark.parametrize("problem", [KeyboardInterrupt(), OSError("disk full"), FileFormatError("bad")])
def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path, problem: BaseException) -> None:
    def fill() -> None:
        with whole_folder(tmp_path / "new") as folder:
            (folder / "half").write_text("half")
            raise problem

    expected = FileWriteError if type(problem) is OSError else type(problem)
    with pytest.raises(expected):
        fill()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_may_be_empty_but_not_taken(tmp_path: Path) -> None:
    place = tmp_path / "deep" / "new"
    place.mkdir(parents=True)
    with whole_folder(place) as folder:
        (folder / "file").write_text("text")
    assert [path.name for path in place.iterdir()] == ["file"]
    assert [path.name for path in place.parent.iterdir()] == ["new"]
    for taken in (place, place / "file"):
        with pytest.raises(InputError, match="must be new or empty"), whole_folder(taken):
            pass
    with pytest.raises(FileWriteError, match="must be a folder"), whole_folder(place / "file" / "below"):
        pass
