"""Both codecs keep their promises about strides; the Wan one is the real class with a tiny shape."""

import numpy as np
import pytest
import torch

from mirage_sim.errors import InputError, InputTypeError
from mirage_sim.model.autoencoder import EmbeddedCodecConfig
from mirage_sim.model.codec import EmbeddedCodec, WanCodec
from mirage_sim.model.images import frames_to_tensor, tensor_to_frames
from tests.models import wan21_autoencoder


def embedded() -> EmbeddedCodec:
    torch.manual_seed(0)
    return EmbeddedCodec(
        EmbeddedCodecConfig(4, (8, 8, 16, 16), (8, 8, 16, 16), (0, 1, 1, 1), (0, 1, 1, 1))
    ).eval()


def wan() -> WanCodec:
    torch.manual_seed(0)
    return WanCodec(wan21_autoencoder().eval())


@torch.no_grad()
def test_embedded_strides():
    codec = embedded()
    latents = codec.encode(torch.zeros(2, 3, 3, 16, 24))
    assert latents.shape == (2, 3, 4, 2, 3)
    assert codec.decode(latents).shape == (2, 3, 3, 16, 24)


@torch.no_grad()
def test_embedded_statistics_are_undone_by_decode():
    codec = embedded()
    frames = torch.rand(1, 1, 3, 16, 16)
    before = codec.decode(codec.encode(frames))
    codec.latent_mean.fill_(0.3)
    codec.latent_std.fill_(2.0)
    torch.testing.assert_close(codec.decode(codec.encode(frames)), before, atol=1e-5, rtol=1e-4)


@torch.no_grad()
def test_wan_strides_in_time():
    codec = wan()
    assert (codec.spatial_stride, codec.temporal_stride) == (8, 4)
    latents = codec.encode(torch.zeros(1, 9, 3, 16, 16))
    assert latents.shape == (1, 3, 4, 2, 2)
    assert codec.decode(latents).shape == (1, 9, 3, 16, 16)


@torch.no_grad()
def test_wan_continues_after_context_as_in_one_go():
    codec = wan()
    latents = torch.randn(1, 4, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    whole = codec.decode(latents)
    rest = codec.decode(latents[:, 2:], context=latents[:, :2])
    assert rest.shape[1] == 8
    torch.testing.assert_close(rest, whole[:, -8:])


def test_wrong_frames_are_named():
    with pytest.raises(InputError, match="divisible by 8"):
        embedded().encode(torch.zeros(1, 1, 3, 12, 16))
    with pytest.raises(InputError, match=r"1 \+ 4k frames, got 4"):
        wan().encode(torch.zeros(1, 4, 3, 16, 16))


def test_images_go_both_ways_without_loss():
    frames = np.arange(256, dtype=np.uint8).repeat(3).reshape(1, 16, 16, 3)
    assert np.array_equal(tensor_to_frames(frames_to_tensor(frames)), frames)
    with pytest.raises(InputTypeError, match="frames must be a uint8"):
        frames_to_tensor(frames.astype(np.float32))
