"""Adapters: whatever a file calls them and wherever it tells their scale, the same is computed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model_state_dict, inject_adapter_in_model
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.checkpoints import Checkpoint, build_generator, checkpoint_of, open_checkpoint
from mirage_sim.checkpoints.names import LINEAR
from mirage_sim.errors import FileFormatError
from mirage_sim.model.generator import Generator
from mirage_sim.model.lora import merge_lora
from tests.checkpoints.official import TINY
from tests.models import wan_transformer

WIDTH = TINY.heads * TINY.head_dim
FLOAT = torch.float32
Halves = dict[str, tuple[Tensor, Tensor]]
"""First half [r, in] and second half [out, r] by official layer, such as `blocks.0.self_attn.q`."""


def make_halves(rank_of: Callable[[int], int] = lambda block: 3, blocks: int = TINY.layers) -> Halves:
    rng = torch.Generator().manual_seed(5)
    halves = {}
    for block in range(blocks):
        for layer in LINEAR:
            inner, outer = WIDTH, WIDTH
            if layer.startswith("ffn"):
                inner, outer = (WIDTH, TINY.ffn_dim) if layer == "ffn.0" else (TINY.ffn_dim, WIDTH)
            first, second = torch.randn(2, rank_of(block), max(inner, outer), generator=rng)
            halves[f"blocks.{block}.{layer}"] = (
                first[:, :inner].contiguous(),
                second[:, :outer].T.contiguous(),
            )
    return halves


def ours(layer: str) -> str:
    """Our name, which is diffusers', of an official layer."""
    _, block, rest = layer.split(".", 2)
    return f"blocks.{block}.{LINEAR[rest]}"


def written(path: Path, halves: Halves, style: str, alpha: float | None = None) -> Path:
    """Write halves in a style: `<pattern of the layer>|<first>|<second>`."""
    pattern, *ends = style.split("|")
    tensors = {}
    for layer, pair in halves.items():
        name = pattern.format(
            o=layer, d=ours(layer), u=layer.replace(".", "_"), v=ours(layer).replace(".", "_")
        )
        tensors |= {f"{name}.{end}.weight": half for end, half in zip(ends, pair, strict=True)}
        if alpha is not None:
            tensors[f"{name}.alpha"] = torch.tensor(alpha)
    save_file(tensors, path)
    return path


def output(checkpoint: Checkpoint, merge: bool = False) -> Tensor:
    generator = build_generator(checkpoint, dtype=FLOAT)
    if merge:
        merge_lora(generator)
    return run(generator)


@torch.no_grad()
def run(generator: Generator) -> Tensor:
    rng = torch.Generator().manual_seed(0)
    target = torch.randn(1, 2, TINY.channels, 4, 6, generator=rng)
    context = torch.randn(1, 3, TINY.context_dim, generator=rng)
    return generator(target, torch.full((1, 2, 2, 3), 0.5), context)


def by_hand(plain: Checkpoint, halves: Halves, scale: float) -> Tensor:
    """Output of the backbone with scale · B·A added to its weights in float64."""
    weights = dict(plain.backbone)
    for layer, (first, second) in halves.items():
        name = f"{ours(layer)}.weight"
        delta = scale * second.double() @ first.double()
        weights[name] = (weights[name].double() + delta).float()
    return output(Checkpoint(plain.config, weights))


# {o} is a layer by its official name, {d} by that of diffusers, {u} and {v} the same with underscores.
STYLES = [
    "{o}|lora_A|lora_B",
    "pipe.dit.{o}|lora_A.default|lora_B.default",
    "diffusion_model.{o}|lora_A|lora_B",
    "diffusion_model.{o}|lora_down|lora_up",
    "base_model.{o}|lora_A|lora_B",
    "base_model.model.{d}|lora_A|lora_B",
    "base_model.model.diffusion_model.{o}|lora_A|lora_B",
    "transformer.{d}|lora_A|lora_B",
    "transformer.{d}|lora_A.default|lora_B.default",
    "transformer.{d}|lora.down|lora.up",
    "lora_unet_{u}|lora_down|lora_up",
    "lora_unet_{v}|lora_down|lora_up",
]


@pytest.fixture
def weights(official: Path) -> Path:
    return official / "diffusion_pytorch_model.safetensors"


def test_every_naming_computes_the_same(weights: Path, tmp_path: Path) -> None:
    halves = make_halves()
    expected = by_hand(open_checkpoint(weights), halves, 1.0)
    found = [
        open_checkpoint(weights, None, written(tmp_path / f"{index}.safetensors", halves, style))
        for index, style in enumerate(STYLES)
    ]
    assert len({checkpoint.digest() for checkpoint in found}) == 1
    assert len(found[0].adapters) == 2 * len(LINEAR) * TINY.layers
    made = output(found[0])
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    assert float((made - output(open_checkpoint(weights))).abs().mean()) > 1e-2


@pytest.mark.parametrize("style", [STYLES[3], STYLES[10], STYLES[0]])
def test_alpha_over_rank_scales_the_product(weights: Path, tmp_path: Path, style: str) -> None:
    halves = make_halves(lambda block: 4)
    for alpha in (2.0, 5.0):
        path = written(tmp_path / "scaled.safetensors", halves, style, alpha)
        checkpoint = open_checkpoint(weights, None, path)
        for layer, (first, second) in halves.items():
            delta = alpha / 4 * second.double() @ first.double()
            told = [checkpoint.adapters[f"{ours(layer)}.lora_{half}.weight"].double() for half in "BA"]
            error = (told[0] @ told[1] - delta).abs().max()
            assert float(error) <= (0.0 if alpha == 2.0 else 1e-6 * float(delta.abs().max()))
        for merge in (False, True):
            expected = by_hand(open_checkpoint(weights), halves, alpha / 4)
            torch.testing.assert_close(output(checkpoint, merge), expected, rtol=1e-4, atol=1e-4)


def test_scales_of_half_precision_are_not_rounded_again(weights: Path, tmp_path: Path) -> None:
    """0.5 · B is below what float16 holds."""
    halves = {
        layer: (first.half(), (1e-7 * second).half()) for layer, (first, second) in make_halves().items()
    }
    path = written(tmp_path / "half.safetensors", halves, STYLES[3], 1.5)
    adapters = open_checkpoint(weights, None, path).adapters
    for layer, (first, second) in halves.items():
        assert torch.equal(adapters[f"{ours(layer)}.lora_A.weight"], first)
        assert torch.equal(adapters[f"{ours(layer)}.lora_B.weight"].double(), 0.5 * second.double())


def test_every_layer_has_a_rank_and_some_have_no_adapter(weights: Path, tmp_path: Path) -> None:
    halves = make_halves(lambda block: (2, 5, 2)[block], blocks=3)
    path = written(tmp_path / "mixed.safetensors", halves, STYLES[3], 6.0)
    checkpoint = open_checkpoint(weights, None, path)
    generator = build_generator(checkpoint, dtype=FLOAT)
    plain = open_checkpoint(weights)
    merged = dict(plain.backbone)
    for layer, (first, second) in halves.items():
        delta = 6.0 / len(first) * second.double() @ first.double()
        merged[f"{ours(layer)}.weight"] = (merged[f"{ours(layer)}.weight"].double() + delta).float()
    expected = output(Checkpoint(plain.config, merged))
    torch.testing.assert_close(run(generator), expected, rtol=1e-4, atol=1e-4)
    again = checkpoint_of(generator)
    assert again.adapters.keys() == checkpoint.adapters.keys()
    torch.testing.assert_close(output(again), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("rslora", [False, True])
def test_what_peft_and_diffusers_write_is_read(weights: Path, tmp_path: Path, rslora: bool) -> None:
    generator = build_generator(open_checkpoint(weights), dtype=FLOAT)
    config = LoraConfig(
        r=4, lora_alpha=6, use_rslora=rslora, target_modules=["to_q", "ffn.net.2"], init_lora_weights=False
    )
    with torch.random.fork_rng():
        torch.manual_seed(3)
        inject_adapter_in_model(config, generator.backbone, "style")
    expected = run(generator)
    transformer = wan_transformer(generator.config)
    transformer.add_adapter(config, adapter_name="style")
    transformer.load_state_dict(generator.backbone.state_dict())
    transformer.save_lora_adapter(tmp_path / "diffusers", adapter_name="style")
    state = get_peft_model_state_dict(transformer, adapter_name="style")
    (tmp_path / "peft").mkdir()
    save_file(
        {f"base_model.model.{name}": tensor.contiguous() for name, tensor in state.items()},
        tmp_path / "peft" / "adapter_model.safetensors",
    )
    config.save_pretrained(tmp_path / "peft")
    for path in (
        tmp_path / "diffusers" / "pytorch_lora_weights.safetensors",
        tmp_path / "peft" / "adapter_model.safetensors",
    ):
        made = output(open_checkpoint(weights, None, path))
        torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)


def test_adapters_that_compute_something_else_are_refused(weights: Path, tmp_path: Path) -> None:
    path = written(tmp_path / "adapter_model.safetensors", make_halves(), STYLES[5])
    told = {"lora_alpha": 4, "r": 3}
    for change, said in (
        ({"use_dora": True}, r"adapters with .*'use_dora': False.*got .*'use_dora': True"),
        ({"alpha_pattern": {"to_q": 2}}, "alpha_pattern"),
        ({"lora_alpha": None}, "alpha None"),
    ):
        (tmp_path / "adapter_config.json").write_text(json.dumps(told | change))
        with pytest.raises(FileFormatError, match=said):
            open_checkpoint(weights, None, path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.update({"blocks.0.ffn.0.alpha": torch.ones(2)}), "one finite alpha"),
        (lambda t: t.update({"blocks.0.ffn.0.alpha": torch.tensor(float("nan"))}), "one finite alpha"),
        (
            lambda t: t.update({"blocks.9.ffn.0.alpha": torch.tensor(1.0)}),
            r"blocks\.9\.ffn\.net\.0\.proj\.alpha",
        ),
        (
            lambda t: t.update({"blocks.0.attn1.to_q.alpha": torch.tensor(1.0)}),
            r"unexpected: blocks\.0\.\S+\.alpha",
        ),
        (lambda t: t.pop("blocks.1.self_attn.k.lora_down.weight"), r"1 missing: .*self_attn\.k\.lora_A"),
        (lambda t: t.pop("blocks.1.self_attn.k.lora_up.weight"), r"1 missing: .*self_attn\.k\.lora_B"),
        (lambda t: t.update({"blocks.0.ffn.0.dora_scale": torch.ones(1)}), r"unexpected: .*dora_scale"),
    ],
)
def test_what_is_wrong_is_named(
    weights: Path, tmp_path: Path, change: Callable[[dict[str, Tensor]], object], said: str
) -> None:
    tensors = {}
    for layer, (first, second) in make_halves().items():
        tensors |= {f"{layer}.lora_down.weight": first, f"{layer}.lora_up.weight": second}
        tensors[f"{layer}.alpha"] = torch.tensor(3.0)
    change(tensors)
    save_file(tensors, tmp_path / "bad.safetensors")
    with pytest.raises(FileFormatError, match=said):
        open_checkpoint(weights, None, tmp_path / "bad.safetensors")


def test_a_lone_file_of_the_backbone_may_have_the_names_of_diffusers(weights: Path, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(weights)
    (tmp_path / "config.json").write_text((weights.parent / "config.json").read_text())
    path = tmp_path / "single.safetensors"
    save_file({f"transformer.{name}": tensor for name, tensor in checkpoint.backbone.items()}, path)
    assert open_checkpoint(path).digest() == checkpoint.digest()
