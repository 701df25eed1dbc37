"""What is counted agrees with the formulas on tiny and on full shapes, and with numbers told by hand."""

from __future__ import annotations

import argparse
import importlib
import json
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKLWan

from mirage_sim.errors import InputError, StateError
from mirage_sim.evaluation import bench, counts_networks
from mirage_sim.evaluation.bench_config import CountsConfig
from mirage_sim.evaluation.counts import bench_counts, world_bytes
from mirage_sim.evaluation.counts_cards import CARDS, Setting, fits, floors, needed_bytes
from mirage_sim.evaluation.counts_codec import (
    CodecShape,
    decode_flops,
    encode_flops,
    tiled_decode_flops,
)
from mirage_sim.evaluation.counts_formulas import (
    PassShape,
    TextShape,
    generator_flops,
    text_flops,
    text_parameters,
)
from mirage_sim.evaluation.counts_networks import (
    count_codec,
    count_networks,
    count_passes,
    count_text,
    empty_text_encoder,
    one_pass,
)
from mirage_sim.evaluation.counts_report import counts_table
from mirage_sim.evaluation.full_size import full_size_codec
from mirage_sim.evaluation.results import write_results
from mirage_sim.memory import SpatialMemory
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.config import WAN_5B, GeneratorConfig
from mirage_sim.model.full_size import full_size_memory, loaded_shape
from mirage_sim.model.meter import Flops, by_kind, measure, peak_with_matrix
from tests.models import wan22_autoencoder

TINY = GeneratorConfig(4, 7, 2, 12, 3, 32, 16, (1, 2, 2), 2)
SMALL = GeneratorConfig(48, 54, 2, 12, 2, 32, 16)  # for the full codec
TINY_TEXT = TextShape(vocabulary=50, width=16, layers=2, heads=2, head_dim=4, ffn_dim=24, buckets=4)


def tiny_codec() -> WanCodec:
    with torch.device("meta"):
        autoencoder = wan22_autoencoder(8, 12, [True, True], [0.0] * 4, [1.0] * 4)
    return WanCodec(autoencoder).to("meta").eval()


def empty(*shape: int) -> torch.Tensor:
    return torch.empty(*shape, device="meta")


def test_the_meter_knows_what_is_alive() -> None:
    weight, given = empty(100, 100), empty(10, 100)

    def call() -> torch.Tensor:
        first = given @ weight  # 4000 bytes, beside 4000 of what was given
        second = first + 1.0  # 12000 in all
        del first
        return second[:5] * 2.0  # 10000: a view takes nothing

    told = measure(call, [weight])
    assert told.flops == Flops(linear=2 * 10 * 100 * 100)
    assert told.peak_bytes == 12000


def test_attention_is_counted_alike_with_and_without_its_matrix() -> None:
    query, key = empty(1, 2, 64, 8), empty(1, 2, 96, 8)
    mask = empty(1, 1, 64, 96)

    def attend(mask: torch.Tensor | None = None) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(query, key, key, attn_mask=mask)

    whole = Flops(attention=4 * 64 * 96 * 2 * 8)
    assert measure(attend, []).flops == measure(lambda: attend(mask), []).flops == whole
    matrix = 4 * 2 * 64 * 96
    assert measure(attend, []).peak_bytes < matrix < peak_with_matrix(attend, [])


def test_operations_of_unknown_kind_are_refused() -> None:
    with pytest.raises(StateError, match="baddbmm"):
        by_kind({torch.ops.aten.baddbmm: 1})


@pytest.mark.parametrize(("preceding", "references", "branch"), product((0, 2), (0, 4), (False, True)))
def test_passes_agree_with_the_formulas(preceding: int, references: int, branch: bool) -> None:
    shapes = [PassShape(target, preceding, references, 6, 5, branch) for target in (1, 3)]
    rows, matrix = count_passes(loaded_shape(TINY), shapes, (4, 6))
    assert all(row["counted"] == row["formula"] for row in rows)
    assert rows[-1]["sequence"] == (references + 3 + preceding) * 6
    assert matrix > 0


@pytest.mark.parametrize(("references", "branch"), [(0, False), (4, True)])
def test_blocks_that_are_alike_are_counted_as_if_each_had_been_run(references: int, branch: bool) -> None:
    generator = loaded_shape(replace(TINY, layers=6))
    weights = list(generator.parameters())
    call = one_pass(generator, PassShape(3, 2, references, 6, 5, branch), (4, 6))
    assert measure(call, weights, generator.blocks) == measure(call, weights)
    assert peak_with_matrix(call, weights, generator.blocks) == peak_with_matrix(call, weights)
    assert all("forward" not in vars(block) for block in generator.blocks)


def test_a_full_pass_agrees_with_the_formulas() -> None:
    shape = PassShape(9, 2, 4, 880, 512, True)
    rows, matrix = count_passes(loaded_shape(WAN_5B), [shape], (44, 80))
    assert rows[0]["counted"] == rows[0]["formula"] == generator_flops(WAN_5B, shape).as_dict()
    assert 247e12 < rows[0]["formula"]["total"] < 248e12
    # The worst moment is in a feed-forward layer: all hints wait for their blocks, every token has its own
    # modulation in 16 and in 32 bit, and the hidden layer is there before and after its activation.
    wide, hidden = 13200 * 3072, 13200 * 14336
    by_hand = 15 * 2 * 9680 * 3072 + (2 + 4) * 6 * wide + 2 * 2 * hidden + 5 * 2 * wide
    assert 0.98 < by_hand / rows[0]["peak_bytes"] < 1.0
    # Self-attention of 13,200 tokens over 24 heads: the matrix alone has 16.7 GB in 32 bit.
    assert rows[0]["peak_bytes"] < 4 * 24 * 13200**2 < matrix


def test_parameters_agree_with_the_formulas() -> None:
    told = count_networks(loaded_shape(TINY), tiny_codec(), empty_text_encoder(TextShape()), (4, 8))
    assert all(each["parameters"] == each["formula"] for each in told.values())
    assert told["LoRA, rank 8"]["parameters"] == 2 * told["LoRA, rank 4"]["parameters"]


def test_full_parameters_agree_with_the_formulas_and_with_published_sizes() -> None:
    told = count_networks(loaded_shape(WAN_5B), full_size_codec("meta"), None, (32,))
    assert all(each["parameters"] == each["formula"] for each in told.values())
    assert all(each["bytes"] == 2 * (each["parameters"] + each["float32"]) for each in told.values())
    assert round(told["backbone"]["parameters"] / 1e9, 2) == 5.0
    assert round((told["VAE encoder"]["parameters"] + told["VAE decoder"]["parameters"]) / 1e6) == 705
    assert told["backbone"]["float32"] < 0.01 * told["backbone"]["parameters"]
    assert round(text_parameters(TextShape()) / 1e9, 2) == 5.68
    assert "text encoder" not in told


@pytest.mark.parametrize("length", [1, 3])
def test_the_codec_agrees_with_the_formulas(length: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counts_networks, "TILE_PIXELS", 32)
    monkeypatch.setattr(counts_networks, "TILE_STRIDE", 16)
    calls = count_codec(tiny_codec(), length, (4, 6))
    assert all(each["counted"] == each["formula"] for each in calls.values())
    assert calls["decode_tiled"]["counted"]["convolution"] > calls["decode"]["counted"]["convolution"]


def test_the_full_codec_agrees_with_the_formulas() -> None:
    codec = full_size_codec("meta").to("meta").eval()
    shape, weights = CodecShape.of(codec.autoencoder.config), list(codec.parameters())
    assert shape == CodecShape()
    encoded = measure(lambda: codec.encode(empty(1, 5, 3, 704, 1280)), weights)
    assert encoded.flops == encode_flops(shape, 5, (44, 80))
    decoded = measure(lambda: codec.decode(empty(1, 1, 48, 44, 80), empty(1, 1, 48, 44, 80)), weights)
    assert decoded.flops == decode_flops(shape, 2, (44, 80))
    assert tiled_decode_flops(shape, 2, (44, 80), 80, 70) == decoded.flops


@pytest.mark.parametrize("shape", [TINY_TEXT, TextShape()])
def test_the_text_encoder_agrees_with_the_formulas(shape: TextShape) -> None:
    text = empty_text_encoder(shape)
    assert text is not None
    assert sum(each.numel() for each in text.parameters()) == text_parameters(shape)
    counted = count_text(text, shape, 7)["prompt"]["counted"]
    assert counted == text_flops(shape, 7).as_dict()


def test_without_transformers_the_text_encoder_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    assert empty_text_encoder(TINY_TEXT) is None
    assert count_text(None, TINY_TEXT, 7) == {}


def test_a_world_takes_what_its_memory_says() -> None:
    told = world_bytes(CountsConfig(), (44, 80))
    memory = SpatialMemory(full_size_memory(48), 1)
    lens = torch.tensor([[40.0, 0.0, 40.0], [0.0, 40.0, 22.0], [0.0, 0.0, 1.0]])
    pose = torch.eye(4)[None, None]
    memory.write(torch.zeros(1, 1, 48, 44, 80), torch.full((1, 1, 44, 80), 2.0), pose, lens[None, None])
    held = memory.stats()
    assert int(held.bytes[0]) == int(held.entries[0]) * told["entry"] + told["view"]
    assert told["frame"] == 44 * 80 * told["entry"]
    assert told["latents"] == (4 + 9 + 2) * told["latent"] == 15 * 48 * 44 * 80 * 4


def test_floors_follow_from_published_peaks() -> None:
    row = floors(989e12 * 32, 32, 0.25)[0]
    assert row["seconds"] == pytest.approx(1.0)
    assert row["share"] == pytest.approx(4.0)


def test_a_setting_takes_its_largest_group() -> None:
    weights = {"generator": 100, "codec": 10, "text": 50}
    peaks = {
        "generate": 7,
        "generate_matrix": 70,
        "decode": 20,
        "decode_tiled": 5,
        "encode": 6,
        "prompt": 1,
    }
    together = (("text", "generator", "codec"),)
    assert needed_bytes(Setting("", together, False), weights, peaks, 3) == 160 + 20 + 3
    assert needed_bytes(Setting("", together, True), weights, peaks, 3) == 160 + 7 + 3
    assert needed_bytes(Setting("", together, True, True), weights, peaks, 3) == 160 + 70 + 3
    apart = (("text",), ("generator",), ("codec",))
    assert needed_bytes(Setting("", apart, False), weights, peaks, 3) == 107 + 3
    del weights["text"]
    assert needed_bytes(Setting("", together, True), weights, peaks, 3) == 110 + 7 + 3
    rows = fits({"generator": 22 * 2**30, "codec": 0}, peaks, 0)
    assert [rows[0]["cards"][card.name] for card in CARDS] == [True, True, True, True, True, False]


def test_the_command_fills_a_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "bench-counts"
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    words = ["counts", "--lengths", "2", "--references", "1", "--steps", "3", "--out", str(out)]
    monkeypatch.setattr(bench, "CountsConfig", lambda **told: CountsConfig(SMALL, 32, 64, ranks=(4,), **told))
    result = bench.run(parser.parse_args(words))
    assert result["aims"][0]["met"]
    report = json.loads((out / "results.json").read_text())["figures"]
    assert (report["frames"], len(report["passes"])) == (4, 2)
    step = 3 * report["passes"][-1]["counted"]["total"] + report["calls"]["decode"]["counted"]["total"]
    assert report["step_flop"] == step
    assert "computed, not measured" in capsys.readouterr().out
    document = tmp_path / "README.md"
    marks = [f"<!-- results: {name} -->\n<!-- /results -->\n" for name in ("counts", "counts-floor")]
    document.write_text("".join(marks))
    assert write_results(document, tmp_path) == ["counts", "counts-floor"]
    assert document.read_text().count("| H100 SXM | 989 |") == 2


def test_a_first_segment_makes_no_new_pictures() -> None:
    result = bench_counts(CountsConfig(SMALL, 32, 64, (1,), (0,), ranks=()))
    assert result["floor"] == []
    assert result["aims"][0]["met"]
    assert "\n1: 6 tokens" in counts_table(result)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="must be at least 1"):
        CountsConfig(lengths=(0,))
    with pytest.raises(InputError, match="must not be empty"):
        CountsConfig(references=())
    with pytest.raises(InputError, match="at least 0"):
        CountsConfig(references=(-1,))
    with pytest.raises(InputError, match="multiples of 32"):
        CountsConfig(height=700)
    with pytest.raises(InputError, match="frames must be 1"):
        encode_flops(CodecShape(), 4, (2, 2))
    with pytest.raises(InputError, match="is_residual"):
        CodecShape.of(AutoencoderKLWan(base_dim=8, z_dim=4).config)
