"""Names: from structure to ours and back, with diffusers' own converter as the judge."""

from __future__ import annotations

import pytest
import torch
from diffusers import AutoencoderKLWan
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers

from mirage_sim.checkpoints.codec_names import codec_config, codec_depth, codec_names
from mirage_sim.checkpoints.names import ADAPTERS, BACKBONE, BRANCH, Names, publish, translate
from mirage_sim.checkpoints.shapes import config_of_tensors, empty_codec, with_branch
from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.evaluation.full_size import full_size_codec
from mirage_sim.model.config import WAN_5B, GeneratorConfig
from mirage_sim.model.generator import empty_generator
from mirage_sim.model.lora import TARGETS
from tests.checkpoints import official


def test_backbone_names_are_those_of_diffusers_converter() -> None:
    stored = official.backbone()
    judged = convert_wan_transformer_to_diffusers(dict(stored))
    ours, unknown = translate(stored, BACKBONE)
    assert not unknown
    assert official.same(ours, judged)
    assert ours.keys() == empty_generator(official.TINY).backbone.state_dict().keys()


def test_branch_names_are_those_of_diffusers_converter() -> None:
    stored = official.branch()
    judged = convert_wan_transformer_to_diffusers(dict(stored))
    ours, unknown = translate(stored, BRANCH)
    assert not unknown
    for name, tensor in ours.items():
        kind, _, rest = name.partition(".")
        theirs = {
            "patch_embedding": f"vace_patch_embedding.{rest}",
            "before_proj": f"vace_blocks.0.proj_in.{rest}",
            "after_proj": f"vace_blocks.{rest.replace('.', '.proj_out.', 1)}",
            "blocks": f"vace_blocks.{rest}",
        }[kind]
        assert torch.equal(judged.pop(theirs), tensor)
    assert not judged
    assert ours.keys() == empty_generator(official.TINY).branch.state_dict().keys()


def test_codec_names_are_those_of_the_class() -> None:
    stored = official.codec()
    depth = codec_depth(stored)
    assert depth == (3, 1)
    ours, unknown = translate(stored, codec_names(*depth))
    assert not unknown
    expected = empty_codec("test", codec_config(ours, *depth)).state_dict()
    assert {name: tensor.shape for name, tensor in ours.items()} == {
        name: tensor.shape for name, tensor in expected.items()
    }


@pytest.mark.parametrize(
    ("names", "stored"),
    [
        (BACKBONE, official.backbone()),
        (BRANCH, official.branch()),
        (ADAPTERS, official.adapters(layers=("q", "k", "v", "o"))),
        (codec_names(3, 1), official.codec()),
    ],
)
def test_names_go_there_and_back(names: Names, stored: dict[str, torch.Tensor]) -> None:
    ours, unknown = translate(stored, names)
    assert not unknown
    assert len(ours) == len(stored)
    assert official.same(publish(ours, names), stored)


def test_adapters_may_sit_wherever_ours_do() -> None:
    layers = ("self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "ffn.0", "ffn.2")
    ours = [ADAPTERS.to_ours(f"blocks.11.{layer}.lora_B.weight") for layer in layers]
    assert all(name is not None and name.endswith(".lora_B.weight") for name in ours)
    ends = {name.removesuffix(".lora_B.weight").split(".", 3)[-1] for name in ours if name and "attn" in name}
    assert ends | {"ffn.net.0.proj", "ffn.net.2"} == set(TARGETS)


@pytest.mark.parametrize(
    "prefix",
    ["", "module.", "model.", "module.model.", "model.diffusion_model.", "pipe.dit.", "transformer."],
)
def test_backbone_prefixes(prefix: str) -> None:
    for style in ("ffn.0.bias", "ffn.net.0.proj.bias"):
        found, unknown = translate({f"{prefix}blocks.3.{style}": torch.zeros(1)}, BACKBONE)
        assert (list(found), unknown) == (["blocks.3.ffn.net.0.proj.bias"], [])


@pytest.mark.parametrize("prefix", ["", "module.", "model.", "pipe.vace.", "vace.", "module.pipe.vace."])
def test_branch_prefixes(prefix: str) -> None:
    found, unknown = translate({f"{prefix}vace_blocks.1.after_proj.weight": torch.zeros(1)}, BRANCH)
    assert (list(found), unknown) == (["after_proj.1.weight"], [])


@pytest.mark.parametrize("style", ["lora_A", "lora_A.default", "lora_down", "lora_down.default", "lora.down"])
@pytest.mark.parametrize(
    "prefix",
    [
        *("", "module.", "model.", "pipe.dit.", "dit.", "diffusion_model.", "transformer.", "base_model."),
        *("base_model.model.", "base_model.model.dit.", "base_model.model.diffusion_model."),
    ],
)
def test_adapter_prefixes(prefix: str, style: str) -> None:
    for layer in ("blocks.12.self_attn.o", "blocks.12.attn1.to_out.0", "blocks_12_self_attn_o"):
        stored = {f"{prefix}{layer}.{style}.weight": torch.zeros(1), f"{prefix}{layer}.alpha": torch.ones(1)}
        found, unknown = translate(stored, ADAPTERS)
        assert unknown == []
        assert list(found) == ["blocks.12.attn1.to_out.0.lora_A.weight", "blocks.12.attn1.to_out.0.alpha"]


@pytest.mark.parametrize(
    ("names", "name"),
    [
        (BACKBONE, "blocks.0.norm1.weight"),
        (BACKBONE, "blocks.x.norm3.weight"),
        (BACKBONE, "blocks.0.self_attn.q.scale"),
        (BACKBONE, "img_emb.proj.0.weight"),
        (BRANCH, "vace_blocks.1.before_proj.weight"),
        (BRANCH, "patch_embedding.weight"),
        (BRANCH, "pipe.dit.blocks.0.ffn.0.weight"),
        (ADAPTERS, "blocks.0.norm3.lora_A.weight"),
        (ADAPTERS, "blocks.0.self_attn.q.lora_A.other.weight"),
        (ADAPTERS, "blocks.0.norm3.alpha"),
        (ADAPTERS, "blocks.0.self_attn.q.lora_A.bias"),
        (ADAPTERS, "lora_te_blocks_0_self_attn_q.lora_down.weight"),
        (ADAPTERS, "transformer_2.blocks.0.attn1.to_q.lora_A.weight"),
        (codec_names(3, 1), "encoder.downsamples.0.residual.0.gamma"),
        (codec_names(3, 1), "encoder.downsamples.0.downsamples.2.resample.1.weight"),
    ],
)
def test_unknown_names_are_told(names: Names, name: str) -> None:
    assert translate({name: torch.zeros(1)}, names) == ({}, [name])


def test_a_tensor_that_is_there_twice_is_told() -> None:
    one, two = "blocks.0.self_attn.q.lora_A.weight", "dit.blocks.0.self_attn.q.lora_A.default.weight"
    found, unknown = translate({one: torch.zeros(1), two: torch.ones(1)}, ADAPTERS)
    assert (len(found), unknown) == (1, [two])


def test_what_has_no_published_name_is_not_published() -> None:
    with pytest.raises(InputError, match=r"got none for encoder\.down_blocks\.0\.norm1\.gamma"):
        publish({"encoder.down_blocks.0.norm1.gamma": torch.zeros(1)}, codec_names(3, 1))


def test_the_full_size_is_read_off_the_shapes() -> None:
    with torch.device("meta"):
        stored = official.backbone(WAN_5B)
        beside = official.branch(GeneratorConfig(**{**vars(WAN_5B), "condition_channels": 96}))
        vae = official.codec((160, 320, 640, 640), 256, 2, (False, True, True))
    assert len(stored) == 825
    ours, unknown = translate(stored, BACKBONE)
    config = config_of_tensors("test", ours, None)
    assert config == WAN_5B
    expected = empty_generator(config)
    assert not unknown
    assert shapes(ours) == shapes(expected.backbone.state_dict())

    ours, unknown = translate(beside, BRANCH)
    config = with_branch("test", config, ours)
    assert (config.condition_channels, config.branch_every, unknown) == (96, 2, [])
    assert shapes(ours) == shapes(empty_generator(config).branch.state_dict())

    depth = codec_depth(vae)
    ours, unknown = translate(vae, codec_names(*depth))
    told, known = codec_config(ours, *depth), full_size_codec("meta").autoencoder
    assert not unknown
    assert shapes(ours) == shapes(known.state_dict())
    statistics = {"latents_mean", "latents_std"}
    assert all(known.config[key] == value for key, value in told.items() if key not in statistics)
    assert [len(told[key]) for key in statistics] == [48, 48]


def shapes(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in tensors.items()}


def test_another_codec_is_refused() -> None:
    other = AutoencoderKLWan(base_dim=4, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1)
    with pytest.raises(FileFormatError, match=r"must be the VAE of Wan2\.2"):
        codec_depth(other.state_dict())
    few = official.codec(channels=4)
    ours, _ = translate(few, codec_names(3, 1))
    with pytest.raises(FileFormatError, match="48 latent channels, whose statistics are known, got 4"):
        codec_config(ours, 3, 1)
    del ours["encoder.conv_in.weight"]
    with pytest.raises(FileFormatError, match=r"lacks \['encoder\.conv_in\.weight'\]"):
        codec_config(ours, 3, 1)
