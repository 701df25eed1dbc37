"""The Wan2.2 autoencoder, which runs frame by frame on cached features, is the one defined on whole clips."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from diffusers import AutoencoderKLWan
from torch import Tensor

from mirage_sim.model.codec import WanCodec
from tests.oracles import wan_vae
from tests.oracles.compare import EXACT, changed_tensors, deviation, double_weights, scatter_weights

CHANNELS = 48
REACH = 38
"""So many latents before the present one bear on its frames: the decoder's convolutions add up to that."""
BY_CONTEXT = {1: 2.0, 4: 1.0, 8: 0.2, 16: 2e-3, 24: EXACT, REACH: EXACT}
"""By length of the context, how far a last latent's frames may be from those of the whole video."""

UNUSED = {
    "encode": ("autoencoder.decoder.", "autoencoder.post_quant_conv."),
    "decode": ("autoencoder.encoder.", "autoencoder.quant_conv."),
}


@pytest.fixture(scope="module")
def codec() -> WanCodec:
    """The published architecture, narrow, with random weights and statistics."""
    rng = torch.Generator().manual_seed(1)
    autoencoder = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=6,
        z_dim=CHANNELS,
        dim_mult=[1, 2, 4, 4],
        num_res_blocks=2,
        temperal_downsample=[False, True, True],
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_temporal=4,
        scale_factor_spatial=16,
        latents_mean=torch.randn(CHANNELS, generator=rng).tolist(),
        latents_std=(0.5 + torch.rand(CHANNELS, generator=rng)).tolist(),
    )
    scatter_weights(autoencoder, seed=2)
    return WanCodec(autoencoder).requires_grad_(False).eval()


def draw_frames(count: int, batch: int = 2, height: int = 32, width: int = 48) -> Tensor:
    return 2.0 * torch.rand(batch, count, 3, height, width, generator=torch.Generator().manual_seed(3)) - 1.0


def draw_latents(count: int, batch: int = 2, height: int = 2, width: int = 3) -> Tensor:
    return torch.randn(batch, count, CHANNELS, height, width, generator=torch.Generator().manual_seed(4))


def expected(function: Callable[..., Tensor], codec: WanCodec, given: Tensor, **changed: Tensor) -> Tensor:
    """What `encode` or `decode` of the oracle says; `changed` tensors take the place of the codec's."""
    weights = double_weights(codec) | changed
    tensors = {name.removeprefix("autoencoder."): value for name, value in weights.items()}
    return function(tensors, given.double(), tensors["latent_mean"], tensors["latent_std"])


@pytest.mark.parametrize("count", [1, 5, 9, 13])
def test_encode(codec, count):
    frames = draw_frames(count)
    latents = codec.encode(frames)
    assert latents.shape == (2, 1 + count // 4, CHANNELS, 2, 3)
    assert deviation(latents, expected(wan_vae.encode, codec, frames)) < EXACT


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_decode(codec, count):
    latents = draw_latents(count)
    made = codec.decode(latents)
    assert made.shape == (2, 4 * count - 3, 3, 32, 48)
    assert deviation(made, expected(wan_vae.decode, codec, latents)) < EXACT
    assert (made.abs() == 1).float().mean() < 0.1  # clipping hides little


@pytest.mark.parametrize("way", ["encode", "decode"])
def test_every_weight_counts(codec, way):
    given = draw_frames(5, 1, 32, 16) if way == "encode" else draw_latents(2, 1, 2, 1)
    made, weights = getattr(codec, way)(given), double_weights(codec)
    used = {name: value for name, value in weights.items() if not name.startswith(UNUSED[way])}
    missed = [
        name
        for name, changed in changed_tensors(used, seed=5)
        if deviation(made, expected(getattr(wan_vae, way), codec, given, **changed)) < 10 * EXACT
    ]
    assert missed == []


def test_later_frames_do_not_change_earlier_latents(codec):
    frames = draw_frames(13)
    assert deviation(codec.encode(frames[:, :5]), codec.encode(frames)[:, :2]) < EXACT
    assert deviation(codec.encode(frames[:, 1:6]), codec.encode(frames)[:, :2]) > 0.1


@pytest.mark.parametrize("before", [1, 2, 3])
def test_decode_goes_on_exactly_after_a_context_that_reaches_the_start(codec, before):
    latents = draw_latents(4)
    whole = expected(wan_vae.decode, codec, latents)
    rest = codec.decode(latents[:, before:], latents[:, :before])
    assert deviation(rest, whole[:, 4 * before - 3 :]) < EXACT


def test_decode_after_a_shorter_context_is_an_approximation_until_the_context_reaches_far_enough(codec):
    latents = draw_latents(REACH + 6, 1, 1, 1)
    last = codec.decode(latents)[:, -4:]
    off = {
        before: deviation(codec.decode(latents[:, -1:], latents[:, -1 - before : -1]), last)
        for before in BY_CONTEXT
    }
    assert all(off[before] <= limit for before, limit in BY_CONTEXT.items()), off
    assert off[1] > 0.1
    assert off[16] > EXACT


def test_latents_within_reach_and_no_earlier_ones_bear_on_a_frame(codec):
    latents = draw_latents(REACH + 6, 1, 1, 1).double().requires_grad_()
    expected(wan_vae.decode, codec, latents)[:, -4:].square().sum().backward()
    slope = latents.grad.abs().amax(dim=(0, 2, 3, 4))
    assert (slope > 0).tolist() == [False] * 5 + [True] * (REACH + 1)
