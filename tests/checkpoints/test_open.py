"""Opening: what a folder tells is taken from it, and everything that is wrong is told at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load, save_file

from mirage_sim.checkpoints import open_checkpoint
from mirage_sim.errors import FileFormatError
from tests.checkpoints.official import TINY, adapters, backbone, branch, codec

WEIGHTS = "diffusion_pytorch_model.safetensors"


def change(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_diffusers_folder(diffusers_folder: Path) -> None:
    checkpoint = open_checkpoint(diffusers_folder)
    assert checkpoint.config == replace(TINY, condition_channels=10)
    assert list(checkpoint.parts) == ["backbone", "codec"]
    assert checkpoint.codec_config["latents_mean"] == [0.1, -0.2, 0.3, 0.0]


def test_a_diffusers_folder_without_codec(diffusers_folder: Path) -> None:
    (diffusers_folder / "vae").rename(diffusers_folder / "elsewhere")
    assert list(open_checkpoint(diffusers_folder).parts) == ["backbone"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"_class_name": "WanVACETransformer3DModel"},
            "must be of class WanTransformer3DModel, got 'WanVACE",
        ),
        ({"eps": 1e-5, "image_dim": 8}, r"has {'eps': 1e-05, 'image_dim': 8}"),
        ({"out_channels": 5}, r"have { ?'out_channels': 4 ?}.*has {'out_channels': 5}"),
        ({"patch_size": [2, 2, 2]}, "must describe a generator, got patch_size must be 1 in time"),
        ({"num_layers": "four"}, "sizes must be whole numbers"),
        ({"num_layers": 0}, "sizes must be at least 1"),
        ({"num_layers": 3}, r"27 unexpected: blocks\.3\."),
        ({"ffn_dim": 64}, "12 of another shape: blocks.0.ffn.net.0.proj.weight"),
    ],
)
def test_a_backbone_that_does_not_fit_its_config(
    diffusers_folder: Path, changes: dict[str, Any], said: str
) -> None:
    change(diffusers_folder / "transformer" / "config.json", **changes)
    with pytest.raises(FileFormatError, match=said):
        open_checkpoint(diffusers_folder)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"_class_name": "AutoencoderKL"}, "must be of class AutoencoderKLWan"),
        ({"latents_std": [1.0]}, r"of 4 channels, got \[4, 1\]"),
        ({"dim_mult": 3}, "must describe an AutoencoderKLWan"),
        (
            {"z_dim": 5, "latents_mean": [0.0] * 5, "latents_std": [1.0] * 5},
            "of another shape: .*post_quant_conv",
        ),
    ],
)
def test_a_codec_that_does_not_fit_its_config(
    diffusers_folder: Path, changes: dict[str, Any], said: str
) -> None:
    change(diffusers_folder / "vae" / "config.json", **changes)
    with pytest.raises(FileFormatError, match=said):
        open_checkpoint(diffusers_folder)


def test_keys_of_other_versions_do_not_disturb(diffusers_folder: Path) -> None:
    change(diffusers_folder / "vae" / "config.json", clip_output=False)
    assert "clip_output" not in open_checkpoint(diffusers_folder).codec_config


def test_a_config_must_tell_the_sizes(diffusers_folder: Path) -> None:
    path = diffusers_folder / "transformer" / "config.json"
    path.write_text('{"_class_name": "WanTransformer3DModel", "ffn_dim": 32}')
    with pytest.raises(FileFormatError, match=r"lacks \['attention_head_dim', 'in_channels', "):
        open_checkpoint(diffusers_folder)


def test_official_files(official: Path) -> None:
    checkpoint = open_checkpoint(official, official / "branch.safetensors", official / "adapters.safetensors")
    assert checkpoint.config == TINY
    assert list(checkpoint.parts) == ["backbone", "branch", "adapters", "codec"]
    alone = open_checkpoint(official / WEIGHTS)
    assert list(alone.parts) == ["backbone"]
    assert alone.config == replace(TINY, condition_channels=10)


@pytest.mark.parametrize("channels", [4, 8, 10, 96])
def test_the_branch_tells_its_condition_channels(official: Path, channels: int) -> None:
    path = official / "other.pt"
    torch.save({"vace": branch(replace(TINY, condition_channels=channels))}, path)
    assert open_checkpoint(official, path).config.condition_channels == channels


@pytest.mark.parametrize("every", [1, 2, 4])
def test_the_branch_tells_where_it_stands(official: Path, every: int) -> None:
    path = official / "other.safetensors"
    save_file(branch(replace(TINY, branch_every=every)), path)
    assert open_checkpoint(official, path).config.branch_every == every


def test_heads_are_of_128_channels_if_nothing_tells(official: Path) -> None:
    (official / "config.json").unlink()
    with pytest.raises(FileFormatError, match="got 24 channels for heads of 128"):
        open_checkpoint(official)
    wide = replace(TINY, heads=2, head_dim=128, layers=1)
    save_file(backbone(wide), official / WEIGHTS)
    assert open_checkpoint(official).config.heads == 2


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"_class_name": "WanTransformer3DModel"}, "must be of class WanModel"),
        ({"num_heads": 5}, "got 24 channels for 5 heads"),
        ({"num_heads": "2"}, "must tell num_heads as a whole number, got '2'"),
        ({"num_heads": 0}, "must tell num_heads as a whole number, got 0"),
    ],
)
def test_an_official_config_that_does_not_fit(official: Path, told: dict[str, Any], said: str) -> None:
    change(official / "config.json", **told)
    with pytest.raises(FileFormatError, match=said):
        open_checkpoint(official)


def spoil(path: Path) -> tuple[str, str, str]:
    """Take a tensor away, add one and cut one: their names."""
    tensors = load(path.read_bytes())
    names = [
        name
        for name in sorted(tensors)
        if tensors[name].ndim > 1 and "patch" not in name and ".0." not in name
    ]
    gone, cut = names[0], names[1]
    del tensors[gone]
    tensors[cut] = tensors[cut][:, :-1].contiguous()
    tensors["what.is.this"] = torch.zeros(1)
    save_file(tensors, path)
    return gone, cut, "what.is.this"


@pytest.mark.parametrize(
    ("name", "given"),
    [(WEIGHTS, None), ("branch.safetensors", "branch"), ("adapters.safetensors", "adapters")],
)
def test_all_that_is_wrong_is_told_at_once(official: Path, name: str, given: str | None) -> None:
    gone, cut, new = spoil(official / name)
    with pytest.raises(FileFormatError) as told:
        open_checkpoint(official, **({given: official / name} if given else {}))
    said = str(told.value)
    assert name in said
    assert f"1 missing: {gone}" in said
    assert f"1 unexpected: {new}" in said
    assert f"1 of another shape: {cut} [" in said


def test_all_that_is_wrong_with_a_codec_is_told_at_once(official: Path) -> None:
    stored = codec()
    del stored["encoder.middle.1.proj.bias"]
    stored["decoder.head.0.gamma"] = torch.zeros(3, 1, 1, 1)
    torch.save(stored | {"extra": torch.zeros(1)}, official / "Wan2.2_VAE.pth")
    with pytest.raises(FileFormatError) as told:
        open_checkpoint(official)
    said = str(told.value)
    assert "1 missing: encoder.middle.1.proj.bias" in said
    assert "1 unexpected: extra" in said
    assert "1 of another shape: decoder.head.0.gamma [3, 1, 1, 1] instead of [6, 1, 1, 1]" in said


def test_long_lists_are_cut(official: Path) -> None:
    tensors = load((official / WEIGHTS).read_bytes())
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("blocks.2.")}
    save_file(kept, official / WEIGHTS)
    with pytest.raises(
        FileFormatError, match=r"27 missing: blocks\.2\.\S+(, blocks\.2\.\S+){19} and 7 more$"
    ):
        open_checkpoint(official)


def test_numbers_that_need_scales_are_refused(official: Path) -> None:
    tensors = load((official / WEIGHTS).read_bytes())
    tensors["blocks.1.ffn.0.weight"] = tensors["blocks.1.ffn.0.weight"].to(torch.float8_e4m3fn)
    save_file(tensors, official / WEIGHTS)
    with pytest.raises(FileFormatError, match=r"1 of another type: blocks\.1\.ffn\.0\.weight torch\.float8"):
        open_checkpoint(official)


def test_a_branch_of_another_depth_is_refused(official: Path) -> None:
    deep = replace(TINY, layers=6, branch_every=2)
    save_file(branch(deep), official / "branch.safetensors")
    with pytest.raises(FileFormatError, match="for every so many of the backbone's 4, got 3"):
        open_checkpoint(official, official / "branch.safetensors")


def test_adapters_of_another_size_are_refused(official: Path) -> None:
    path = official / "adapters.safetensors"
    uneven = adapters(rank=3)
    uneven["pipe.dit.blocks.3.self_attn.v.lora_A.weight"] = torch.zeros(5, 24)
    uneven["pipe.dit.blocks.9.self_attn.v.lora_A.weight"] = torch.zeros(3, 24)
    save_file(uneven, path)
    with pytest.raises(FileFormatError) as told:
        open_checkpoint(official, None, path)
    assert "unexpected: pipe.dit.blocks.9.self_attn.v.lora_A.weight" in str(told.value)
    assert "blocks.3.self_attn.v.lora_B.weight [24, 3] instead of [24, 5]" in str(told.value)


def test_the_wrong_file_is_told(official: Path) -> None:
    with pytest.raises(FileFormatError, match="must hold a backbone"):
        open_checkpoint(official / "branch.safetensors")
    with pytest.raises(FileFormatError, match="every so many of the backbone's 4, got 0"):
        open_checkpoint(official, official / "adapters.safetensors")
    with pytest.raises(FileFormatError, match="must hold adapters"):
        open_checkpoint(official, None, official / "branch.safetensors")
    with pytest.raises(FileFormatError, match="source must be a file of weights, or a folder"):
        open_checkpoint(official / "nowhere")
    save_file(codec(), official / "Wan2.2_VAE.safetensors")
    with pytest.raises(FileFormatError, match="got both"):
        open_checkpoint(official)
