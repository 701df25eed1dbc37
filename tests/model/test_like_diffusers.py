"""Backbone, autoencoder and Euler's method do what diffusers' classes do, bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import AutoencoderDC, FlowMatchEulerDiscreteScheduler
from torch import nn

from mirage_sim.errors import InputError
from mirage_sim.model.autoencoder import Autoencoder, EmbeddedCodecConfig
from mirage_sim.model.backbone import Backbone, check_backend
from mirage_sim.model.config import GeneratorConfig, SamplerConfig
from mirage_sim.model.generator import Generator
from mirage_sim.model.sampler import make_scheduler
from tests.models import wan_transformer

SHAPE = GeneratorConfig(4, 10, 2, 12, 3, 32, 16, (1, 2, 2), 2)
DTYPES = (torch.float32, torch.bfloat16)


def seeded(build: type[nn.Module], *given: object) -> nn.Module:
    """Build a network from a fixed seed, without touching the caller's random state."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        return build(*given)


def same_weights(ours: nn.Module, theirs: nn.Module) -> None:
    """The same names, in the same order, with the same values."""
    mine, others = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, value in mine.items():
        assert torch.equal(value, others[name]), name


def test_weights_of_the_backbone() -> None:
    same_weights(seeded(Backbone, SHAPE), seeded(wan_transformer, SHAPE))


@pytest.mark.parametrize("dtype", DTYPES)
def test_parts_of_the_backbone_and_their_gradients(dtype: torch.dtype) -> None:
    ours, theirs = seeded(Backbone, SHAPE).to(dtype), seeded(wan_transformer, SHAPE).to(dtype)
    rng = torch.Generator().manual_seed(0)
    levels = 1000.0 * torch.rand(2, 6, generator=rng)
    context = torch.randn(2, 3, SHAPE.context_dim, generator=rng).to(dtype)
    hidden = torch.randn(2, 6, SHAPE.heads * SHAPE.head_dim, generator=rng).to(dtype)
    embedded, time, text = ours.condition_embedder(levels, context)
    expected = theirs.condition_embedder(levels.flatten(), context, None, timestep_seq_len=6)
    assert torch.equal(embedded, expected[0])
    assert torch.equal(time, expected[1].unflatten(2, (6, -1)))
    assert torch.equal(text, expected[2])
    rotary = theirs.rope(torch.zeros(1, 4, 1, 4, 6))
    results = [network.blocks[1](hidden, text, time, rotary) for network in (ours, theirs)]
    assert torch.equal(*results)
    gradients = [
        torch.autograd.grad(result.float().square().sum(), network.blocks[1].attn1.to_q.weight)[0]
        for result, network in zip(results, (ours, theirs), strict=True)
    ]
    assert torch.equal(*gradients)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("first", [0, 1])
def test_the_autoencoder(dtype: torch.dtype, first: int) -> None:
    widths, layers = (8, 8, 16, 16), (first, 1, 2, 1)
    judge = AutoencoderDC(
        latent_channels=4,
        encoder_block_out_channels=widths,
        decoder_block_out_channels=widths,
        encoder_layers_per_block=layers,
        decoder_layers_per_block=layers,
        encoder_qkv_multiscales=((),) * 4,
        decoder_qkv_multiscales=((),) * 4,
        downsample_block_type="pixel_unshuffle",
    ).to(dtype)
    ours = Autoencoder(EmbeddedCodecConfig(4, widths, widths, layers, layers)).to(dtype)
    assert list(ours.state_dict()) == list(judge.state_dict())
    ours.load_state_dict(judge.state_dict())
    pictures = torch.rand(2, 3, 16, 24, generator=torch.Generator().manual_seed(0)).to(dtype)
    latents = ours.encode(pictures)
    assert torch.equal(latents, judge.encode(pictures).latent)
    assert torch.equal(ours.decode(latents), judge.decode(latents).sample)


@pytest.mark.parametrize(("steps", "shift"), [(1, 1.0), (4, 3.0), (20, 5.0)])
def test_eulers_method(steps: int, shift: float) -> None:
    judge = FlowMatchEulerDiscreteScheduler(shift=shift)
    judge.set_timesteps(sigmas=torch.linspace(1.0, 1.0 / steps, steps).tolist())
    ours = make_scheduler(SamplerConfig(steps=steps, shift=shift), torch.device("cpu"))
    assert torch.equal(ours.sigmas, judge.sigmas)
    assert torch.equal(ours.timesteps, judge.timesteps)
    mine = theirs = torch.randn(1, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    for timestep in ours.timesteps:
        mine = ours.step(torch.tanh(mine), timestep, mine)[0]
        theirs = judge.step(torch.tanh(theirs), timestep, theirs, return_dict=False)[0]
        assert torch.equal(mine, theirs)


def test_attention_by_a_back_end_of_diffusers_is_that_of_pytorch() -> None:
    plain = seeded(Generator, SHAPE).requires_grad_(False).eval()
    chosen = copy.deepcopy(plain)
    chosen.set_attention("native")
    target, sigma = torch.randn(1, 2, 4, 4, 4), torch.rand(1, 2, 2, 2)
    context = torch.randn(1, 3, SHAPE.context_dim)
    assert torch.equal(chosen(target, sigma, context), plain(target, sigma, context))
    assert {part.backend for part in chosen.modules() if hasattr(part, "backend")} == {"native"}


@pytest.mark.parametrize("name", ["nonsense", "flash_hub", "sage"])
def test_a_back_end_that_is_not_here_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"attention must be .*{name}"):
        check_backend(name)
