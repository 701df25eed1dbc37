"""Packed convolutions give what plain ones give, also after their weights change."""

import copy
import io

import pytest
import torch

from mirage_sim.model.packed import PackedConv2d, pack_convolutions


@pytest.mark.parametrize("shape", [(1, 16, 8, 8), (1, 16, 5, 7), (3, 16, 8, 8)])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_packed_convolution_is_a_convolution(shape, dtype):
    torch.manual_seed(0)
    packed = PackedConv2d(16, 24, 3, padding=1).to(dtype)
    plain = torch.nn.Conv2d(16, 24, 3, padding=1).to(dtype)
    plain.load_state_dict(packed.state_dict())
    image = torch.randn(shape, dtype=dtype)
    for _ in range(2):
        for layout in (torch.contiguous_format, torch.channels_last):
            with torch.no_grad():
                given = image.to(memory_format=layout)
                torch.testing.assert_close(packed(given), plain(given), atol=1e-2, rtol=2e-2)
        with torch.no_grad():  # new weights are packed anew
            for network in (packed, plain):
                network.weight.mul_(2.0)


def test_packing_changes_the_plain_convolutions_of_a_network_only():
    network = torch.nn.Sequential(
        torch.nn.Conv2d(2, 2, 1),
        torch.nn.Sequential(torch.nn.Conv2d(2, 2, 1)),
        torch.nn.ConvTranspose2d(2, 2, 2),
    )
    state = {name: value.clone() for name, value in network.state_dict().items()}
    pack_convolutions(network)
    assert isinstance(network[0], PackedConv2d)
    assert isinstance(network[1][0], PackedConv2d)
    assert type(network[2]) is torch.nn.ConvTranspose2d
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_gradients_and_copies_are_those_of_a_plain_one():
    packed = PackedConv2d(4, 4, 3, padding=1).to(torch.bfloat16)
    image = torch.randn(1, 4, 8, 8, dtype=torch.bfloat16)
    with torch.no_grad():
        expected = packed(image)
    copied = copy.deepcopy(packed)
    with torch.no_grad():
        assert torch.equal(copied(image), expected)
    torch.save(packed, io.BytesIO())
    packed(image).sum().backward()
    assert packed.weight.grad is not None
