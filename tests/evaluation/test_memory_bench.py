"""The memory benchmark on small shapes of the same classes."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLWan

from mirage_sim.errors import InputError
from mirage_sim.evaluation import full_size, memory_bench
from mirage_sim.evaluation.bench_config import MemoryBenchConfig
from mirage_sim.evaluation.full_size import (
    EncodingTime,
    Shape,
    empty_memory,
    full_size_chunks,
    full_size_codec,
)
from mirage_sim.evaluation.memory_bench import bench_memory, plan_way
from mirage_sim.evaluation.memory_report import memory_table, plot_memory
from mirage_sim.model.codec import WanCodec
from mirage_sim.scenes import SPLITS, make_scene
from tests.models import tiny_world_model

SMALL = Shape(32, 64, 8, 2)


def tiny_codec() -> WanCodec:
    return WanCodec(
        AutoencoderKLWan(
            base_dim=8,
            z_dim=4,
            dim_mult=[1, 1],
            num_res_blocks=1,
            temperal_downsample=[True],
            scale_factor_temporal=4,
            scale_factor_spatial=8,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).to(torch.bfloat16)
    )


def test_the_full_size_codec_has_the_published_shape() -> None:
    codec = full_size_codec("meta")
    assert (codec.channels, codec.spatial_stride, codec.temporal_stride) == (48, 16, 4)
    assert round(sum(each.numel() for each in codec.parameters()) / 1e6) == 705


@pytest.mark.parametrize("name", ["latent", "colours-1cm", "colours-3cm", "appended"])
def test_a_chunk_is_timed_and_counted(name: str) -> None:
    with make_scene(SPLITS["test"][0]) as scene:
        way = plan_way(scene, MemoryBenchConfig(chunks=2), SMALL.latent_frames)
        codec = tiny_codec()
        chunks = list(full_size_chunks(name, scene, way, codec, EncodingTime(codec, 5), SMALL))
    assert len(chunks) == 2
    for chunk in chunks:
        assert chunk["condition"] == pytest.approx(chunk["draw"] + chunk["encode"])
        assert min(chunk["draw"], chunk["update"]) > 0
        assert (chunk["encode"] > 0) == name.startswith("colours")
    assert chunks[1]["entries"] >= chunks[0]["entries"] > 0
    cells = 4 * 8
    if name == "appended":
        assert [chunk["entries"] for chunk in chunks] == [3 * cells, 5 * cells]
        assert chunks[0]["cache_mib"] == 3 * cells * (4 * 2 + 12) / 2**20


def test_encoding_is_timed_once_and_scaled() -> None:
    video = torch.zeros(1, 9, 3, 32, 64)
    calls: list[int] = []
    codec = tiny_codec()
    codec.encode = lambda frames: calls.append(frames.shape[1])  # type: ignore[method-assign,assignment]
    encoding = EncodingTime(codec, 5)
    assert encoding.of(video) == encoding.of(video) > 0
    assert calls == [5]
    assert EncodingTime(codec, 0).of(video) == 0.0
    assert calls == [5]


def test_laps_of_one_place_do_not_grow_the_latent_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_bench, "Shape", lambda: SMALL)
    monkeypatch.setattr(full_size, "Shape", lambda: SMALL)
    config = MemoryBenchConfig("full-size", ("latent", "appended"), 12, 2, encode_frames=0)
    result = bench_memory(None, config)
    latent, appended = (result["methods"][name] for name in ("latent", "appended"))
    assert latent[-1]["entries"] <= 1.25 * latent[3]["entries"]
    assert appended[-1]["entries"] > 2.5 * appended[3]["entries"]
    told = {aim["name"]: aim["met"] for aim in result["aims"]}
    assert told["entries at the end over those after the first lap"]


def test_the_embedded_preset_times_whole_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_world_model()
    result = bench_memory(model, MemoryBenchConfig(methods=("latent", "none"), chunks=1))
    chunk = result["methods"]["latent"][0]
    assert chunk["total"] == pytest.approx(sum(chunk[p] for p in ("condition", "generate", "update", "show")))
    assert chunk["entries"] > 0
    assert result["methods"]["none"][0]["entries"] == 0
    assert set(result["ratios"]) == {"none"}
    assert "latent memory, chunk 1" in memory_table(result)
    assert plot_memory(result, tmp_path / "memory.png").stat().st_size > 1000


def test_bad_settings_are_refused() -> None:
    with pytest.raises(InputError, match="preset must be one of"):
        MemoryBenchConfig("huge")
    with pytest.raises(InputError, match="methods must be among"):
        MemoryBenchConfig(methods=("magic",))
    with pytest.raises(InputError, match="chunks must be at least 1"):
        MemoryBenchConfig(chunks=0)
    with pytest.raises(InputError, match="encode_frames must be 0 or 1"):
        MemoryBenchConfig(encode_frames=2)
    with pytest.raises(InputError, match="model must be given"):
        bench_memory(None, MemoryBenchConfig())
    with pytest.raises(InputError, match="must be a method with a memory"):
        empty_memory("none", full_size_codec("meta"))
