"""Round trips: official files to ours and back lose no bit; ours refuse whatever was changed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from mirage_sim.checkpoints import Checkpoint, open_checkpoint, save_checkpoint, save_official
from mirage_sim.checkpoints.files import read_tensors, sha256
from mirage_sim.errors import FileFormatError, InputError
from tests.checkpoints.official import TINY, same

PARTS = ("backbone", "branch", "adapters", "codec")


@pytest.fixture
def ours(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    save_checkpoint(checkpoint, tmp_path / "ours")
    return tmp_path / "ours"


def change(folder: Path, **changes: Any) -> None:
    path = folder / "checkpoint.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def rewrite(folder: Path, **tensors: torch.Tensor | None) -> None:
    """Change tensors, and tell the new hash as if nothing had happened."""
    path = folder / "checkpoint.safetensors"
    kept = load(path.read_bytes()) | tensors
    save_file({name: tensor for name, tensor in kept.items() if tensor is not None}, path)
    change(folder, sha256={path.name: sha256(path)})


@pytest.mark.parametrize("limit", [2**30, 20_000])
def test_official_to_ours_and_back_is_exact(
    official: Path, checkpoint: Checkpoint, tmp_path: Path, limit: int
) -> None:
    save_checkpoint(checkpoint, tmp_path / "ours", limit)
    again = open_checkpoint(tmp_path / "ours")
    assert again.config == checkpoint.config == TINY
    assert again.codec_config == checkpoint.codec_config
    assert all(same(again.parts[part], checkpoint.parts[part]) for part in PARTS)
    assert {tensor.dtype for tensor in again.backbone.values()} == {
        torch.float32,
        torch.bfloat16,
        torch.float16,
    }

    save_official(again, tmp_path / "back", limit)
    sharded = limit < 2**30
    ending = ".safetensors.index.json" if sharded else ".safetensors"
    files = {
        "diffusion_pytorch_model.safetensors": f"diffusion_pytorch_model{ending}",
        "Wan2.2_VAE.pth": "Wan2.2_VAE.pth",
        "branch.safetensors": "memory_branch.safetensors",
        "adapters.safetensors": "lora.safetensors",
    }
    for first, last in files.items():
        assert same(read_tensors(official / first), read_tensors(tmp_path / "back" / last))
    assert (len(list((tmp_path / "ours").glob("*-of-*.safetensors"))) > 1) == sharded
    back = open_checkpoint(
        tmp_path / "back",
        tmp_path / "back" / "memory_branch.safetensors",
        tmp_path / "back" / "lora.safetensors",
    )
    assert back.config == TINY


def test_our_folder_says_what_it_is(ours: Path) -> None:
    text = json.loads((ours / "checkpoint.json").read_text())
    assert (text["kind"], text["schema_version"], text["parts"]) == ("mirage_sim.checkpoint", 1, list(PARTS))
    assert text["sha256"] == {"checkpoint.safetensors": sha256(ours / "checkpoint.safetensors")}
    assert text["config"]["generator"]["condition_channels"] == 8
    assert sorted(path.name for path in ours.iterdir()) == ["checkpoint.json", "checkpoint.safetensors"]


def test_ours_takes_a_branch_and_adapters_later(official: Path, tmp_path: Path) -> None:
    save_checkpoint(open_checkpoint(official), tmp_path / "first")
    whole = open_checkpoint(
        tmp_path / "first", official / "branch.safetensors", official / "adapters.safetensors"
    )
    save_checkpoint(whole, tmp_path / "second")
    assert open_checkpoint(tmp_path / "second").config == TINY
    assert list(open_checkpoint(tmp_path / "first").parts) == ["backbone", "codec"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"kind": "mirage_sim.world_model"},
            "must be mirage_sim.checkpoint version 1, got mirage_sim.world_model",
        ),
        (
            {"schema_version": 2},
            "must be mirage_sim.checkpoint version 1, got mirage_sim.checkpoint version 2",
        ),
        ({"kind": None}, "must be mirage_sim.checkpoint version 1, got None"),
        ({"parts": ["backbone", "brain"]}, "must tell parts, config and sha256"),
        ({"parts": ["codec"]}, "must tell parts, config and sha256"),
        ({"sha256": {"../checkpoint.safetensors": ""}}, "must tell parts, config and sha256"),
        ({"config": {"generator": {}}}, "must tell parts, config and sha256"),
        ({"config": {"generator": {"wings": 2}, "codec": {}}}, "must describe a generator, got .*wings"),
        ({"config": {"generator": {"patch_size": [1, 2]}, "codec": {}}}, "must describe a generator"),
        ({"parts": ["backbone"]}, r"196 unexpected: \S+, .* and 176 more"),
        ({"sha256": {"checkpoint.safetensors": "0"}}, "missing or changed checkpoint.safetensors"),
        ({"sha256": {}}, r"none of \['backbone'"),
    ],
)
def test_another_description_is_refused(ours: Path, changes: dict[str, Any], said: str) -> None:
    change(ours, **changes)
    with pytest.raises(FileFormatError, match=said):
        open_checkpoint(ours)


def test_changed_and_missing_files_are_refused(ours: Path) -> None:
    path = ours / "checkpoint.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(FileFormatError, match=r"missing or changed checkpoint\.safetensors"):
        open_checkpoint(ours)
    path.unlink()
    with pytest.raises(FileFormatError, match=r"missing or changed checkpoint\.safetensors"):
        open_checkpoint(ours)


def test_all_that_is_wrong_with_ours_is_told_at_once(ours: Path) -> None:
    rewrite(
        ours,
        **{
            "backbone.proj_out.bias": None,
            "branch.before_proj.bias": torch.zeros(25),
            "adapters.blocks.1.attn1.to_q.lora_B.weight": None,
            "codec.more.weight": torch.zeros(1),
            "wings.weight": torch.zeros(1),
        },
    )
    with pytest.raises(FileFormatError) as told:
        open_checkpoint(ours)
    said = str(told.value)
    assert "2 missing: backbone.proj_out.bias, adapters.blocks.1.attn1.to_q.lora_B.weight" in said
    assert "2 unexpected: wings.weight, codec.more.weight" in said
    assert "1 of another shape: branch.before_proj.bias [25] instead of [24]" in said


def test_a_place_that_is_taken_stays_as_it_is(checkpoint: Checkpoint, official: Path) -> None:
    before = {path.name: path.read_bytes() for path in official.iterdir()}
    for save in (save_checkpoint, save_official):
        with pytest.raises(InputError, match="must be new or empty"):
            save(checkpoint, official)
    assert {path.name: path.read_bytes() for path in official.iterdir()} == before
    assert [path.name for path in official.parent.iterdir()] == ["official"]


def test_a_write_that_fails_leaves_nothing(checkpoint: Checkpoint, tmp_path: Path) -> None:
    broken = dict(checkpoint.codec) | {"no.official.name": torch.zeros(1)}
    odd = Checkpoint(
        checkpoint.config, checkpoint.backbone, codec=broken, codec_config=checkpoint.codec_config
    )
    with pytest.raises(InputError, match=r"got none for no\.official\.name"):
        save_official(odd, tmp_path / "new")
    assert [path.name for path in tmp_path.iterdir()] == ["official"]
