"""Adapters add alpha / rank · B·A to the weights of the layers they are on, before and after merging."""

from __future__ import annotations

import torch
from torch import Tensor

from mirage_sim.model.config import LoRAConfig
from mirage_sim.model.generator import Generator
from mirage_sim.model.lora import ADAPTER, add_lora, merge_lora
from tests.model.test_exact_generator import CONFIG, expected, given
from tests.oracles.compare import EXACT, deviation, double_weights, scatter_weights

RANK, ALPHA = 4, 6
ADAPTED = [
    *(f"{attention}.{layer}" for attention in ("attn1", "attn2") for layer in ("to_q", "to_k", "to_v")),
    "attn1.to_out.0",
    "attn2.to_out.0",
    "ffn.net.0.proj",
    "ffn.net.2",
]
"""The layers of a block with adapters: q, k, v, o of both attentions, and both of the feed-forward."""


def adapted_generator() -> Generator:
    """A generator whose weights and adapters are all random."""
    generator = Generator(CONFIG)
    add_lora(generator, LoRAConfig(rank=RANK, alpha=ALPHA))
    scatter_weights(generator, seed=4)
    return generator.requires_grad_(False).eval()


def merged_by_hand(weights: dict[str, Tensor], scale: float) -> dict[str, Tensor]:
    """Plain weights: W + scale · B·A under the names they have without adapters."""
    merged = {}
    for name, value in weights.items():
        if ".lora_" in name:
            continue
        layer = name.removesuffix(".base_layer.weight")
        if layer != name:
            value = (
                value
                + scale
                * weights[f"{layer}.lora_B.{ADAPTER}.weight"]
                @ (weights[f"{layer}.lora_A.{ADAPTER}.weight"])
            )
        merged[name.replace(".base_layer", "")] = value
    return merged


def test_adapters_are_on_the_backbones_attention_and_feed_forward_layers():
    names = {name.split(".lora_A")[0] for name in adapted_generator().state_dict() if ".lora_A" in name}
    assert names == {
        f"backbone.blocks.{index}.{layer}" for index in range(CONFIG.layers) for layer in ADAPTED
    }


def test_unmerged_adapters():
    generator = adapted_generator()
    inputs = given("references", "preceding", condition_frames=3)
    made, weights = generator(**inputs), double_weights(generator)
    assert deviation(made, expected(merged_by_hand(weights, ALPHA / RANK), inputs)[0]) < EXACT
    assert deviation(made, expected(merged_by_hand(weights, 0.99 * ALPHA / RANK), inputs)[0]) > 10 * EXACT


def test_merged_adapters():
    generator = adapted_generator()
    inputs = given("references", "preceding", condition_frames=3)
    unmerged, by_hand = generator(**inputs), merged_by_hand(double_weights(generator), ALPHA / RANK)
    merge_lora(generator)
    weights = double_weights(generator)
    assert weights.keys() == by_hand.keys()
    assert max(deviation(weights[name], by_hand[name]) for name in by_hand) < EXACT
    merged = generator(**inputs)
    assert deviation(merged, expected(by_hand, inputs)[0]) < EXACT
    assert deviation(merged, unmerged) < EXACT


def test_a_new_adapter_changes_nothing():
    generator = Generator(CONFIG)
    scatter_weights(generator, seed=4)
    generator.requires_grad_(False).eval()
    inputs = given("references", "preceding", condition_frames=3)
    before = generator(**inputs)
    add_lora(generator, LoRAConfig(rank=RANK, alpha=ALPHA))
    assert torch.equal(generator(**inputs), before)
