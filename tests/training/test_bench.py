"""The training benchmark at a small shape of the same classes, on the CPU."""

from __future__ import annotations

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.model.generator import Generator
from mirage_sim.training import bench
from mirage_sim.training.bench import bench_train, train_table
from mirage_sim.training.config import TrainBenchConfig
from tests.evaluation.test_size_bench import SHAPE, small_codec


def test_training_steps_are_timed_by_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "full_size_codec", small_codec)
    result = bench_train(TrainBenchConfig(size=(64, 96), steps=2, device="cpu", generator=SHAPE))
    assert list(result["stages"]) == ["branch", "lora"]
    assert all(each["seconds"] > 0 for each in result["stages"].values())
    with torch.device("meta"):
        shape = Generator(SHAPE)
    assert result["stages"]["branch"]["trained"] == sum(p.numel() for p in shape.branch.parameters())
    assert "lora" in train_table(result)
    with pytest.raises(InputError, match="stages must be among"):
        TrainBenchConfig(stages=("finetune",))
    with pytest.raises(InputError, match="steps must be at least 2"):
        TrainBenchConfig(steps=1)
    with pytest.raises(InputError, match="bench must run on a CUDA device"):
        bench_train(TrainBenchConfig(device="cpu"))
