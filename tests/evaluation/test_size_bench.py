"""The size benchmark at a small shape of the same classes, on the CPU."""

from __future__ import annotations

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.evaluation import size_bench
from mirage_sim.evaluation.bench_config import SizeBenchConfig
from mirage_sim.evaluation.counts_formulas import PassShape, generator_flops
from mirage_sim.evaluation.size_bench import bench_size, size_table
from mirage_sim.evaluation.whole_size import Room, random_generator, walk, whole_chunks
from mirage_sim.geometry import make_intrinsics, rescale_intrinsics, unproject
from mirage_sim.model.codec import WanCodec
from mirage_sim.model.config import (
    PRECEDING,
    PROMPT,
    WAN_5B,
    GeneratorConfig,
    SamplerConfig,
    condition_channels,
)
from mirage_sim.model.generator import Generator
from mirage_sim.perception import Seen
from tests.models import wan22_autoencoder

SHAPE = GeneratorConfig(4, condition_channels(4), 2, 12, 2, 32, 16, (1, 2, 2), 2)


def small_codec() -> WanCodec:
    autoencoder = wan22_autoencoder(4, 4, [True, True], [0.0] * 4, [1.0] * 4).requires_grad_(False)
    return WanCodec(autoencoder.to(torch.bfloat16).eval())


def test_a_whole_chunk_runs_at_a_small_shape() -> None:
    generator = random_generator(SHAPE, torch.device("cpu"))
    sampler = SamplerConfig(2, 5.0, "unipc", 1.0)
    chunks = list(whole_chunks(generator, small_codec(), 3, (64, 96), 2, sampler))
    assert len(chunks) == 3
    for chunk in chunks:
        parts = [chunk[part] for part in ("condition", "generate", "update", "show")]
        assert min(parts) > 0
        assert chunk["total"] == pytest.approx(sum(parts))
        assert chunk["peak_mib"] == 0.0
    assert chunks[2]["entries"] >= chunks[0]["entries"] > 0
    assert chunks[2]["references"] >= 1


@pytest.mark.slow
def test_a_bench_tells_the_operations_of_what_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_bench, "full_size_codec", small_codec)
    config = SizeBenchConfig((1, 2), (2,), (64, 96), 2, device="cpu", generator=SHAPE)
    result = bench_size(config)
    assert [(row["length"], row["steps"]) for row in result["rows"]] == [(1, 2), (2, 2)]
    longest = result["rows"][1]
    tokens = 64 * 96 // (2 * small_codec().spatial_stride) ** 2
    whole = PassShape(3, PRECEDING, int(longest["references"]), tokens, PROMPT, True)
    assert longest["flop"] == 2 * generator_flops(SHAPE, whole).total
    assert longest["floor_measured"] == pytest.approx(longest["flop"] / result["product_rate"] / 8)
    assert "2 latent frames, 2 passes" in size_table(result)


def test_the_room_is_an_empty_box() -> None:
    room, cameras = Room((8.0, 6.0, 2.8), 1.4), walk(7)
    room.cameras, lens = cameras, make_intrinsics(64, 96, 75.0)
    nothing = torch.zeros(len(cameras), 4, 4, 6)
    seen = Seen(nothing, nothing, nothing[:, 0], nothing[:, 0] > 0, None, lens.expand(len(cameras), 3, 3))
    depth = room.estimate(seen).depth
    points = unproject(depth, cameras, rescale_intrinsics(lens, 1 / 16).expand(len(cameras), 3, 3))
    share = (points.abs() / torch.tensor([4.0, 3.0, 1.4])).amax(dim=-1)
    torch.testing.assert_close(share, torch.ones_like(share))
    assert float(depth.min()) > 0


def test_the_whole_size_is_that_of_the_paper() -> None:
    with torch.device("meta"):
        generator = Generator(WAN_5B)
    assert round(sum(p.numel() for p in generator.backbone.parameters()) / 1e9, 1) == 5.0
    assert generator.branch.places == tuple(range(0, 30, 2))


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="lengths and steps must be at least 1"):
        SizeBenchConfig(lengths=(0,))
    with pytest.raises(InputError, match="chunks must be at least 2"):
        SizeBenchConfig(chunks=1)
    with pytest.raises(InputError, match="offload must be None or one of"):
        SizeBenchConfig(offload="disk")
    with pytest.raises(InputError, match="offload must be None but for a CUDA device"):
        SizeBenchConfig(offload="blocks", device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_told() -> None:
    with pytest.raises(InputError, match="device must be one that this machine has"):
        bench_size(SizeBenchConfig())
