"""Stage 1: the codec learns to rebuild frames from noisy latents; then its latents are normalised.

A share of the latents is moved and scaled before decoding, and must give the picture moved and scaled alike:
the memory carries tokens from view to view, so latents should change with the view as a picture does.

Source: ours; the regularisation by moved latents follows EQ-VAE (arXiv 2502.09509).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mirage_sim.evaluation.metrics import gradient_sums, psnr
from mirage_sim.model.codec import EmbeddedCodec, WanCodec
from mirage_sim.model.images import frames_to_tensor, scale_pixels
from mirage_sim.training.config import StageConfig
from mirage_sim.training.data import Clips
from mirage_sim.training.loop import BatchLoss, run_stage
from mirage_sim.training.precision import mixed_precision

CROP = 64  # pixels: four times cheaper than whole frames, and the network is convolutional
LATENT_NOISE = 0.05  # of a channel's standard deviation, so that the decoder forgives a generator's errors
SQUARE_WEIGHT = 4.0  # weight of the squared error, beside L1
EDGE_WEIGHT = 0.5  # weight of the L1 loss between image gradients, which keeps edges crisp
MOVED = 0.25  # share of crops whose latents are moved before they are decoded
LARGEST_ZOOM = 1.3
LARGEST_SHIFT = 1.0  # cells


class _Autoencode(nn.Module):
    """One forward pass of training: encode, move the first ones, disturb, decode."""

    def __init__(self, codec: EmbeddedCodec | WanCodec) -> None:
        super().__init__()
        self.codec = codec

    def forward(self, images: Tensor, noise: Tensor, moves: Tensor) -> Tensor:
        latent = self.codec.autoencoder.encode(images)  # [B, C, h, w]
        latent = move_first(latent, moves)
        spread = latent.detach().float().std(dim=(0, 2, 3), keepdim=True)
        return self.codec.autoencoder.decode(latent + LATENT_NOISE * spread * noise)


def reconstruction_loss(rebuilt: Tensor, images: Tensor) -> Tensor:
    """L1 + MSE on pixels, and L1 on their horizontal and vertical differences; [B, 3, H, W] each."""
    rebuilt = rebuilt.float()
    error = rebuilt - images
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + SQUARE_WEIGHT * error.square().mean() + EDGE_WEIGHT * edges


def random_moves(count: int, cells: int, rng: np.random.Generator) -> Tensor:
    """Draw `count` zooms and shifts of crops `cells` wide, as affine maps [count, 2, 3] of [-1, 1]^2."""
    zoom = np.exp(np.log(LARGEST_ZOOM) * rng.uniform(-1, 1, count))
    shift = 2.0 * LARGEST_SHIFT / cells * rng.uniform(-1, 1, (count, 2))
    moves = np.zeros((count, 2, 3), dtype=np.float32)
    moves[:, 0, 0] = moves[:, 1, 1] = zoom
    moves[:, :, 2] = shift
    return torch.from_numpy(moves)


def move_first(pictures: Tensor, moves: Tensor) -> Tensor:
    """Move the first pictures of a batch, images or latents alike.

    Args:
        pictures: [B, C, H, W].
        moves: [M, 2, 3], M at most B, see `random_moves`.

    Returns:
        [B, C, H, W], the first M moved, the others as they are.
    """
    if len(moves) == 0:
        return pictures
    first = pictures[: len(moves)].float()
    grid = F.affine_grid(moves.to(first.device), list(first.shape), align_corners=False)
    moved = F.grid_sample(first, grid, padding_mode="border", align_corners=False)
    return torch.cat([moved.to(pictures.dtype), pictures[len(moves) :]])


def random_images(frames: Tensor, count: int, rng: np.random.Generator) -> tuple[Tensor, torch.Generator]:
    """Cut `count` random crops from random frames, flipped half of the time.

    Args:
        frames: uint8 [E, T, H, W, 3].
        count: Number of crops B.
        rng: Source of all chance.

    Returns:
        float32 [B, 3, 64, 64] in [-1, 1], and a generator on their device for whatever else is drawn.
    """
    clip, frame, top, left, flip = (
        torch.from_numpy(rng.integers(limit, size=count)).to(frames.device)
        for limit in (*frames.shape[:2], *(side - CROP + 1 for side in frames.shape[2:4]), 2)
    )
    offset = torch.arange(CROP, device=frames.device)
    rows = top[:, None] + offset  # [B, 64]
    columns = left[:, None] + torch.where(flip[:, None] > 0, CROP - 1 - offset, offset)
    crops = frames[clip[:, None, None], frame[:, None, None], rows[:, :, None], columns[:, None]]
    chance = torch.Generator(frames.device).manual_seed(int(rng.integers(2**62)))
    return scale_pixels(crops).contiguous(memory_format=torch.channels_last), chance


@torch.no_grad()
def validation_figures(codec: EmbeddedCodec | WanCodec, held_out: Clips) -> dict[str, float]:
    """PSNR of some held-out frames, and their gradient energy over the truth's."""
    picked = held_out.rgb[:, :: max(1, held_out.rgb.shape[1] // 2)].reshape(-1, *held_out.rgb.shape[2:])[:32]
    truth = frames_to_tensor(picked, codec.latent_mean.device)
    with mixed_precision(truth.device):
        rebuilt = codec.autoencoder(truth).float().clamp(-1, 1)
    everywhere = torch.ones_like(truth[:, 0], dtype=torch.bool)
    energies = [float(gradient_sums(images, everywhere)[0].sum()) for images in (rebuilt, truth)]
    return {
        "validation_psnr": float(psnr(rebuilt, truth).mean()),
        "validation_sharpness": energies[0] / energies[1],
    }


def train_codec(
    codec: EmbeddedCodec | WanCodec, clips: Clips, held_out: Clips, config: StageConfig, out: Path
) -> None:
    """Train `codec` in place.

    Args:
        codec: Network to train.
        clips: Training clips.
        held_out: Validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
    """
    codec.requires_grad_(True)
    device = codec.latent_mean.device
    pictures = torch.from_numpy(clips.rgb).to(device)  # [E, T, H, W, 3]

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            images, chance = random_images(pictures, config.batch_size, rng)
            side = CROP // codec.spatial_stride
            moves = random_moves(round(MOVED * config.batch_size), side, rng)
            size = (config.batch_size, codec.channels, side, side)
            noise = torch.randn(size, generator=chance, device=device)
            rebuilt = module(images, noise, moves)
            return reconstruction_loss(rebuilt, move_first(images, moves))

        return loss

    codec.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run_stage(
        "codec", _Autoencode(codec), batch_loss, config, out, lambda _: validation_figures(codec, held_out)
    )
    codec.requires_grad_(False)
    _normalise(codec, clips)


def _normalise(codec: EmbeddedCodec | WanCodec, clips: Clips) -> None:
    """Set the latent statistics from every eighth clip's first frame."""
    codec.latent_mean.zero_()
    codec.latent_std.fill_(1.0)
    frames = clips.rgb[:: max(1, len(clips.rgb) // 256), 0]
    with torch.no_grad():
        latents = codec.encode(frames_to_tensor(frames, codec.latent_mean.device)[:, None])  # [N, 1, C, h, w]
    codec.latent_mean.copy_(latents.mean(dim=(0, 1, 3, 4)))
    codec.latent_std.copy_(latents.std(dim=(0, 1, 3, 4)))
