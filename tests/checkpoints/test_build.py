"""Building: what runs is what was stored, in its types, and nobody else's memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import WanVACETransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from safetensors.torch import load_file
from torch import Tensor

from mirage_sim.checkpoints import (
    Checkpoint,
    build_codec,
    build_generator,
    checkpoint_of,
    open_checkpoint,
    save_checkpoint,
    save_official,
)
from mirage_sim.errors import InputError
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.generator import Generator
from mirage_sim.model.lora import add_lora, has_lora, merge_lora
from mirage_sim.model.world_model import stays_float32
from tests.checkpoints.official import TINY, same
from tests.models import save_backbone, wan22_autoencoder

FLOAT = torch.float32


def trained(seed: int = 1) -> Generator:
    """A generator whose branch and adapters change something."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        generator = Generator(TINY)
        for layer in (generator.branch.before_proj, *generator.branch.after_proj):
            torch.nn.init.normal_(layer.weight, std=0.2)
        add_lora(generator, LoRAConfig(rank=2, alpha=2))
        for name, weight in generator.backbone.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.2)
    return generator.requires_grad_(False).eval()


def tiny_codec() -> WanCodec:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        autoencoder = wan22_autoencoder(4, 6, [False, True], [0.25] * 48, [2.0] * 48)
    return WanCodec(autoencoder.requires_grad_(False).eval())


@torch.no_grad()
def run(generator: Generator, condition: bool = True) -> Tensor:
    chance = torch.Generator().manual_seed(3)
    channels = generator.config.condition_channels
    return generator(
        torch.randn(1, 2, 4, 4, 4, generator=chance),
        torch.rand(1, 2, 2, 2, generator=chance),
        torch.randn(1, 3, 16, generator=chance),
        condition=torch.randn(1, 2, channels, 4, 4, generator=chance) if condition else None,
    )


def test_a_trained_generator_survives_our_folder(tmp_path: Path) -> None:
    generator = trained()
    save_checkpoint(checkpoint_of(generator, tiny_codec()), tmp_path / "ours")
    opened = open_checkpoint(tmp_path / "ours")
    again = build_generator(opened, dtype=FLOAT)
    assert not any(weight.requires_grad or weight.is_meta for weight in again.parameters())
    assert not any(table.is_meta for table in again.buffers())
    assert torch.equal(run(again), run(generator))
    assert same(dict(again.state_dict()), dict(generator.state_dict()))
    frames = torch.rand(1, 1, 3, 16, 16)
    codec = build_codec(opened, dtype=FLOAT)
    assert (codec.channels, codec.spatial_stride, codec.temporal_stride) == (48, 8, 2)
    assert torch.equal(codec.encode(frames), tiny_codec().encode(frames))
    assert codec.latent_std.tolist() == [2.0] * 48


def test_a_trained_generator_survives_official_files(tmp_path: Path) -> None:
    generator = trained()
    save_official(checkpoint_of(generator), tmp_path / "official")
    files = [tmp_path / "official" / f"{stem}.safetensors" for stem in ("memory_branch", "lora")]
    again = build_generator(open_checkpoint(tmp_path / "official", *files), dtype=FLOAT)
    assert torch.equal(run(again), run(generator))
    assert "vace_blocks.1.self_attn.norm_q.weight" in load_file(files[0])
    assert "pipe.dit.blocks.3.ffn.2.lora_B.weight" in load_file(files[1])


def test_a_diffusers_folder_runs(tmp_path: Path) -> None:
    generator = trained()
    merge_lora(generator)
    save_backbone(generator, tmp_path / "transformer")
    tiny_codec().autoencoder.save_pretrained(tmp_path / "vae")
    opened = open_checkpoint(tmp_path)
    assert torch.equal(run(build_generator(opened, dtype=FLOAT), False), run(generator, False))
    latents = torch.randn(1, 1, 48, 2, 2)
    assert torch.equal(build_codec(opened, dtype=FLOAT).decode(latents), tiny_codec().decode(latents))


@torch.no_grad()
def test_published_weights_do_what_diffusers_own_model_of_the_branch_does(
    official: Path, checkpoint: Checkpoint
) -> None:
    judge = WanVACETransformer3DModel(
        num_attention_heads=TINY.heads,
        attention_head_dim=TINY.head_dim,
        in_channels=TINY.channels,
        out_channels=TINY.channels,
        text_dim=TINY.context_dim,
        ffn_dim=TINY.ffn_dim,
        num_layers=TINY.layers,
        vace_layers=[0, 2],
        vace_in_channels=TINY.condition_channels,
    )
    stored = load_file(official / "diffusion_pytorch_model.safetensors") | load_file(
        official / "branch.safetensors"
    )
    judge.load_state_dict(convert_wan_transformer_to_diffusers({key: t.float() for key, t in stored.items()}))
    generator = build_generator(replace(checkpoint, adapters={}), dtype=FLOAT)
    chance = torch.Generator().manual_seed(5)
    latents = torch.randn(1, 2, 4, 6, 4, generator=chance)
    condition = torch.randn(1, 2, 8, 6, 4, generator=chance)
    context = torch.randn(1, 3, 16, generator=chance)
    ours = generator(latents, torch.full((1, 2, 3, 2), 0.3), context, condition=condition)
    theirs = judge.eval()(
        latents.transpose(1, 2),
        torch.tensor([300.0]),
        context,
        control_hidden_states=condition.transpose(1, 2),
        return_dict=False,
    )[0]
    assert (ours - generator(latents, torch.full((1, 2, 3, 2), 0.3), context)).abs().max() > 1e-2
    torch.testing.assert_close(ours, theirs.transpose(1, 2), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, FLOAT])
def test_norms_and_tables_stay_float32(checkpoint: Checkpoint, dtype: torch.dtype) -> None:
    generator = build_generator(checkpoint, dtype=dtype)
    kinds = {(stays_float32(name), weight.dtype) for name, weight in generator.named_parameters()}
    assert kinds == {(True, FLOAT), (False, dtype)}
    codec = build_codec(checkpoint, dtype=dtype)
    assert {weight.dtype for weight in codec.parameters()} == {dtype}
    assert codec.latent_mean.dtype == FLOAT
    assert torch.isfinite(run(generator)).all()


def test_adapters_can_be_merged(checkpoint: Checkpoint) -> None:
    generator = build_generator(checkpoint, dtype=FLOAT)
    plain = build_generator(replace(checkpoint, adapters={}), dtype=FLOAT)
    assert has_lora(generator)
    assert not has_lora(plain)
    adapted = run(generator)
    assert (adapted - run(plain)).abs().max() > 1e-3
    merge_lora(generator)
    assert not has_lora(generator)
    torch.testing.assert_close(run(generator), adapted, atol=1e-4, rtol=1e-3)
    product = checkpoint.adapters["blocks.1.attn1.to_q.lora_B.weight"].float()
    product = product @ checkpoint.adapters["blocks.1.attn1.to_q.lora_A.weight"].float()
    before = checkpoint.backbone["blocks.1.attn1.to_q.weight"].float()
    merged = generator.backbone.state_dict()["blocks.1.attn1.to_q.weight"]
    torch.testing.assert_close(merged, before + product)


def test_a_scale_of_adapters_is_kept() -> None:
    generator = trained()
    merge_lora(generator)
    add_lora(generator, LoRAConfig(rank=2, alpha=6))
    for name, weight in generator.backbone.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1, generator=torch.Generator().manual_seed(4))
    again = build_generator(checkpoint_of(generator), dtype=FLOAT)
    torch.testing.assert_close(run(again), run(generator.eval()))


def test_without_a_branch_an_untrained_one_changes_nothing(official: Path) -> None:
    opened = open_checkpoint(official)
    state = torch.random.get_rng_state()
    generator = build_generator(opened, dtype=FLOAT)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert generator.config.condition_channels == 10
    assert torch.equal(run(generator), run(generator, condition=False))
    blocks = generator.branch.blocks.state_dict()
    assert torch.equal(
        blocks["1.attn1.to_q.weight"], generator.backbone.state_dict()["blocks.2.attn1.to_q.weight"]
    )
    assert generator.branch.patch_embedding.weight.std() > 0
    assert same(dict(build_generator(opened, dtype=FLOAT).state_dict()), dict(generator.state_dict()))


def test_adapters_are_added_without_the_global_generator(checkpoint: Checkpoint) -> None:
    state = torch.random.get_rng_state()
    build_generator(checkpoint)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_network_owns_its_memory(checkpoint: Checkpoint, official: Path) -> None:
    before = {name: tensor.clone() for name, tensor in checkpoint.backbone.items()}
    generator = build_generator(checkpoint, dtype=FLOAT)
    for weight in generator.parameters():
        weight.zero_()
    assert same(dict(checkpoint.backbone), before)
    again = build_generator(checkpoint, dtype=FLOAT)
    expected = run(again)
    for path in official.iterdir():
        path.write_bytes(bytes(path.stat().st_size))
    assert torch.equal(run(again), expected)


def test_without_a_codec_none_is_built(checkpoint: Checkpoint) -> None:
    with pytest.raises(
        InputError, match=r"must have a codec, got one of \['backbone', 'branch', 'adapters'\]"
    ):
        build_codec(replace(checkpoint, codec={}))
