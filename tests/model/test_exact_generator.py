"""A pass through backbone and memory branch is the published one, computed from the weights alone."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from mirage_sim.model.config import GeneratorConfig
from mirage_sim.model.generator import Generator
from tests.oracles.compare import EXACT, changed_tensors, deviation, double_weights, scatter_weights
from tests.oracles.wan_transformer import Sequence, lay_out, mirage_pass

CONFIG = GeneratorConfig(
    channels=5, condition_channels=7, heads=3, head_dim=20, layers=5, ffn_dim=40, context_dim=11
)
ROWS, COLUMNS = 2, 3  # tokens of a frame
PER_FRAME = ROWS * COLUMNS
REFERENCES, TARGET, PRECEDING = 2, 3, 2
PARTS = [(), ("preceding",), ("references",), ("references", "preceding")]
CONDITIONED = [(parts, frames) for parts in PARTS for frames in (1, TARGET)] + [
    (parts, TARGET + PRECEDING) for parts in PARTS if "preceding" in parts
]
Given = dict[str, Tensor]


@pytest.fixture(scope="module")
def generator() -> Generator:
    model = Generator(CONFIG)
    scatter_weights(model, seed=1)
    return model.requires_grad_(False).eval()


def given(*parts: str, condition_frames: int = 0) -> Given:
    """Random inputs with those parts of the sequence, and a condition for so many frames."""
    rng = torch.Generator().manual_seed(2)

    def draw(frames: int, channels: int) -> Tensor:
        return torch.randn(2, frames, channels, 2 * ROWS, 2 * COLUMNS, generator=rng)

    inputs = {
        "target": draw(TARGET, CONFIG.channels),
        "sigma": torch.rand(2, TARGET, ROWS, COLUMNS, generator=rng),
        "context": torch.randn(2, 4, CONFIG.context_dim, generator=rng),
    }
    frames = {"preceding": draw(PRECEDING, CONFIG.channels), "references": draw(REFERENCES, CONFIG.channels)}
    inputs |= {name: frames[name] for name in parts}
    if condition_frames:
        inputs["condition"] = draw(condition_frames, CONFIG.condition_channels)
    return inputs


def expected(weights: Given, inputs: Given, **changes: object) -> tuple[Tensor, Sequence]:
    """What the oracle says, and its trace; `changes` replace parts of the laid out sequence."""
    inputs = {name: value.double() for name, value in inputs.items()}
    context, condition = inputs.pop("context"), inputs.pop("condition", None)
    sequence = dataclasses.replace(lay_out(**inputs), trace=[], **changes)
    return mirage_pass(weights, sequence, context, condition, CONFIG.heads), sequence


@torch.no_grad()
def traced(generator: Generator, inputs: Given) -> list[Tensor]:
    """Tokens that every backbone block but the first is given."""
    seen: list[Tensor] = []
    hooks = [
        block.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].clone()))
        for block in generator.backbone.blocks[1:]
    ]
    generator(**inputs)
    for hook in hooks:
        hook.remove()
    return seen


@pytest.mark.parametrize("parts", PARTS)
def test_backbone_pass(generator, parts):
    inputs = given(*parts)
    assert deviation(generator(**inputs), expected(double_weights(generator), inputs)[0]) < EXACT


@pytest.mark.parametrize(("parts", "frames"), CONDITIONED)
def test_pass_with_memory_branch(generator, parts, frames):
    inputs = given(*parts, condition_frames=frames)
    assert deviation(generator(**inputs), expected(double_weights(generator), inputs)[0]) < EXACT


@pytest.mark.parametrize("frames", [0, TARGET, TARGET + PRECEDING])
def test_tokens_after_every_block(generator, frames):
    inputs = given("references", "preceding", condition_frames=frames)
    _, sequence = expected(double_weights(generator), inputs)
    seen = traced(generator, inputs)
    assert len(seen) == CONFIG.layers - 1
    assert max(map(deviation, seen, sequence.trace)) < EXACT


@pytest.mark.parametrize("frames", [TARGET, TARGET + PRECEDING])
def test_hints_reach_the_frames_of_the_condition_and_no_others(generator, frames):
    inputs = given("references", "preceding", condition_frames=frames)
    with_hint = traced(generator, inputs)[0].unflatten(1, (-1, PER_FRAME))
    inputs.pop("condition")
    without = traced(generator, inputs)[0].unflatten(1, (-1, PER_FRAME))  # after the first block and its hint
    reached = [bool((with_hint[:, i] != without[:, i]).any()) for i in range(with_hint.shape[1])]
    assert reached == [REFERENCES <= i < REFERENCES + frames for i in range(len(reached))]


@pytest.mark.slow
def test_every_weight_counts(generator):
    inputs = given("references", "preceding", condition_frames=TARGET)
    made, weights = generator(**inputs), double_weights(generator)
    missed = [
        name
        for name, changed in changed_tensors(weights, seed=3)
        if deviation(made, expected(changed, inputs)[0]) < 10 * EXACT
    ]
    assert missed == []


@pytest.mark.parametrize("wrong", ["time", "height", "width", "level", "clean"])
def test_every_position_and_level_counts(generator, wrong):
    inputs = given("references", "preceding", condition_frames=TARGET)
    made, weights = generator(**inputs), double_weights(generator)
    right = expected(weights, inputs)[1]
    positions, level = right.positions.clone(), right.level.clone()
    first = REFERENCES * PER_FRAME
    if wrong == "time":
        positions[:first, 0] += REFERENCES
    elif wrong == "height":
        positions[:first, 1] -= ROWS
    elif wrong == "width":
        positions[-1, 2] += 1
    elif wrong == "level":
        level[0, first] += 0.01
    else:
        level[:, :PER_FRAME] = 0.01
    assert deviation(made, expected(weights, inputs, positions=positions, level=level)[0]) > 10 * EXACT


@pytest.mark.parametrize("scale", [0.0, 0.3, 2.0])
def test_hints_are_scaled(generator, scale):
    """As if what the branch emits through its last layers were scaled."""
    inputs = given("preceding", "references", condition_frames=TARGET + PRECEDING)
    weights = {
        name: value * scale if name.startswith("branch.after_proj") else value
        for name, value in double_weights(generator).items()
    }
    assert deviation(generator(**inputs, hint_scale=scale), expected(weights, inputs)[0]) < EXACT
