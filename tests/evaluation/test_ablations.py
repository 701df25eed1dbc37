"""The latent memory with one thing changed: each variant changes what it says, and the command runs."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mirage_sim.errors import InputError
from mirage_sim.evaluation.ablations import ablations_table, evaluate_ablations
from mirage_sim.evaluation.config import AblationsConfig, WorldsConfig
from mirage_sim.evaluation.revisits import cell_depths, make_revisits
from mirage_sim.evaluation.variants import VARIANTS, NoisyDepth, TrueDepth, make_variant
from mirage_sim.geometry import downsample_depth
from tests.models import tiny_world_model


def test_every_variant_can_be_set_up_and_shares_its_weights() -> None:
    model = tiny_world_model()
    for name in VARIANTS:
        method = make_variant(name, model)
        assert method.name == name
        assert method.model.codec is model.codec
        assert method.model.generator is model.generator
        changed = method.model.config != model.config
        assert changed or method.model.depth_head is not model.depth_head or name == "default", name
    with pytest.raises(InputError, match="variants must be among"):
        make_variant("magic", model)


def test_noisy_depths_are_wrong_by_so_much() -> None:
    model = tiny_world_model(128, 128)
    geometry, tokens = torch.rand(4, 6, 16, 16), torch.randn(4, 4, 16, 16)
    true = model.depth_head.predict(tokens, geometry)
    wrong = NoisyDepth(model.depth_head, 0.1).predict(tokens, geometry)
    assert float((wrong.depth / true.depth).log().std()) == pytest.approx(0.1, rel=0.1)
    assert torch.equal(wrong.spread, true.spread)


def test_true_depths_are_the_simulators() -> None:
    config = WorldsConfig("validation", 1)
    lens = tiny_world_model(64, 64).intrinsics()
    (world,) = make_revisits("yaw", config, lens, (64, 64), 18, [0])
    depths = cell_depths(world, 8)
    assert depths.shape == (37, 8, 8)
    assert torch.equal(depths[0], depths[-1])
    coarse = downsample_depth(world.depth[0], 8)
    near = ((depths[0] - coarse).abs() <= 0.1 * coarse) | (coarse == 0)
    assert float(near.float().mean()) > 0.8  # a cell's centre against the median of its pixels
    head = TrueDepth()
    head.begin(depths[None])
    told = head.predict(torch.zeros(1), torch.zeros(1))
    assert torch.equal(told.depth[0], depths[0])
    assert not told.spread.any()


def test_the_table_of_ablations(tmp_path: Path) -> None:
    names = ("default", "depth from the simulator", "fusion off")
    config = AblationsConfig(WorldsConfig("validation", 1), names, ("yaw",), 9, 1)
    result = evaluate_ablations(tiny_world_model(), config, tmp_path)
    by_variant = result["ways"]["yaw"]
    assert list(by_variant) == list(names)
    assert by_variant["fusion off"]["entries"]["mean"] > by_variant["default"]["entries"]["mean"]
    assert "yaw: depth from the simulator" in ablations_table(result)
    with pytest.raises(InputError, match="variants must be among"):
        AblationsConfig(WorldsConfig(), variants=())
