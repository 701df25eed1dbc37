"""Training of the baselines' own parts on tiny models of the real classes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from mirage_sim.baselines.config import KINDS
from mirage_sim.baselines.weights import load_baseline
from mirage_sim.errors import InputError
from mirage_sim.training import baselines
from mirage_sim.training.baselines import draw_pool, train_baseline
from mirage_sim.training.config import StageConfig
from tests.models import tiny_world_model
from tests.training.test_stages import clips

QUICK = StageConfig(steps=4, batch_size=2, validate_every=1, log_every=1, warmup=1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_baseline_trains_its_own_parts_and_leaves_the_model_alone(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(baselines, "POOL", 2)
    model = tiny_world_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    path = train_baseline(kind, model, clips(), clips(), QUICK, tmp_path)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    own = load_baseline(model, kind, path)
    parts = {"retrieved": ("generator.backbone",)}.get(kind, ("resampler", "generator.branch"))
    for name in parts:
        mine, theirs = own.get_submodule(name).parameters(), model.get_submodule(name).parameters()
        assert any(not torch.equal(*pair) for pair in zip(mine, theirs, strict=True)), name
    logs = {path.name for path in tmp_path.glob("*.jsonl")}
    if kind == "retrieved":
        assert logs == {"retrieved-lora.jsonl"}
    else:
        assert logs == {f"{kind}-{part}.jsonl" for part in ("resample-0", "resample-1", "branch")}
        line = json.loads((tmp_path / f"{kind}-resample-1.jsonl").read_text().splitlines()[-1])
        assert line["validation_as_read"] > 0
    for log in tmp_path.glob("*.jsonl"):
        assert "validation" in log.read_text()


def test_pools_follow_their_seed_and_keep_what_was_drawn() -> None:
    model, given = tiny_world_model(), clips()
    once, twice = (draw_pool("appended", model, given, 2, 2, [0]) for _ in range(2))
    for one, two in zip(once, twice, strict=True):
        assert torch.equal(one.read.latents, two.read.latents)
        assert one.target.dtype == torch.float16
        assert not one.read.view_cos.any()
    assert not torch.equal(once[0].target, once[1].target)


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="kind must be one of"):
        train_baseline("magic", tiny_world_model(), clips(), clips(), QUICK, tmp_path)
