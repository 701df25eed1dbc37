"""Training samples of the generator: a target frame, what came before, and a memory made of other frames.

The memory and the preceding frame are corrupted the way a long rollout corrupts them: noise on stored
tokens, errors in depth, tokens missing.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor
from tqdm import tqdm

from mirage_sim.errors import FileFormatError
from mirage_sim.files import whole_file
from mirage_sim.geometry import rescale_intrinsics
from mirage_sim.memory import MemoryConfig, MemoryRead, gather_tokens, lift_tokens, splat
from mirage_sim.memory.filters import on_surface
from mirage_sim.model.images import frames_to_tensor
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.data import Clips
from mirage_sim.training.precision import mixed_precision

NO_EXTRAS = 0.1  # share of batches that are told only latents and mask, so that extras can be switched off


@dataclass(frozen=True)
class SamplesConfig:
    """How a sample is drawn.

    Attributes:
        history: Largest number of frames in the memory.
        largest_stride: Largest number of recorded steps between the preceding and the target frame.
        memory_dropout: Share of batches without memory, so that the model also works without.
        reference_share: Share of batches with one reference.
        reference_alone: Whether batches without memory may have one, too.
        revisit: Share of samples whose memory holds the target itself, as on the way back, where the memory
            holds more than one frame.
        token_noise: Largest standard deviation of the noise on stored tokens.
        preceding_noise: Largest standard deviation of the noise on the preceding frame.
        depth_noise: Standard deviation of the error of a stored frame's log depth, per frame and per cell.
        missing: Largest share of stored tokens left out, in half of the samples.
        redrawn: Share of stored frames taken as the resampler last drew them, where a stage keeps that.
        edge_threshold: Stored tokens at depth edges are left out as the memory does.
        sky_depth: Where the memory keeps the sky, metres.
    """

    history: int = 6
    largest_stride: int = 3
    memory_dropout: float = 0.12
    reference_share: float = 0.1
    reference_alone: bool = False
    revisit: float = 0.1
    token_noise: float = 0.1
    preceding_noise: float = 0.25
    depth_noise: float = 0.02
    missing: float = 0.3
    redrawn: float = 0.5
    edge_threshold: float = MemoryConfig.edge_threshold
    sky_depth: float = MemoryConfig.sky_depth


@dataclass(frozen=True)
class LatentClips:
    """Encoded clips: E clips of T latent frames.

    Attributes:
        latents: float16 [E, T, C, h, w].
        depth: float32 [E, T, h, w].
        cam2world: float32 [E, T, 4, 4].
        intrinsics: float32 [3, 3] in cells.
        redrawn: The latents as the resampler last drew them, where it did, or `None`.
    """

    latents: Tensor
    depth: Tensor
    cam2world: Tensor
    intrinsics: Tensor
    redrawn: Tensor | None = None

    def to(self, device: torch.device) -> LatentClips:
        """Move everything; batches are drawn where the clips are."""
        return LatentClips(
            *(part.to(device) if part is not None else None for part in vars(self).values())  # type: ignore[arg-type]
        )


@dataclass(frozen=True)
class Sample:
    """A batch for the generator.

    Attributes:
        place: Clip and frame of the targets, int64 [B] each.
        target: Clean latents, [B, 1, C, h, w].
        pose: Their cameras, [B, 1, 4, 4].
        preceding: Latents before, [B, 1, C, h, w], or `None` where the memory is to do without.
        preceding_pose: Their cameras, [B, 1, 4, 4].
        read: What the memory holds.
        references: Earlier views [B, 1, C, h, w], or `None`.
        depth: True depth of the target, [B, 1, h, w].
    """

    place: tuple[Tensor, Tensor]
    target: Tensor
    pose: Tensor
    preceding: Tensor | None
    preceding_pose: Tensor
    read: MemoryRead
    references: Tensor | None
    depth: Tensor


@torch.no_grad()
def encode_clips(model: WorldModel, clips: Clips, path: Path) -> LatentClips:
    """Encode clips once; the result is kept in `path` and reused while the encoder is the same.

    Args:
        model: Its codec encodes.
        clips: Recorded walks.
        path: safetensors file for the latents.

    Returns:
        The encoded clips.

    Raises:
        FileFormatError: If `path` holds latents of other clips.
    """
    encoder = encoder_digest(model)
    if path.exists() and _made_by(path) == encoder:
        latents = load_file(path)["latents"]
        if latents.shape[:2] != clips.rgb.shape[:2]:
            raise FileFormatError(
                f"{path} must hold latents of {clips.rgb.shape[:2]} frames, got {latents.shape}"
            )
    else:
        parts = []
        for clip in tqdm(clips.rgb, desc="encode", mininterval=5.0):
            with mixed_precision(model.device):
                latents = model.codec.encode(frames_to_tensor(clip, model.device)[None])[0]
                parts.append(latents.half().cpu().contiguous())
        latents = torch.stack(parts)
        with whole_file(path) as temporary:
            save_file({"latents": latents}, temporary, {"encoder": encoder})
    stride = model.codec.spatial_stride
    return LatentClips(
        latents,
        torch.from_numpy(clips.depth),
        torch.from_numpy(clips.cam2world),
        rescale_intrinsics(torch.from_numpy(clips.intrinsics), 1.0 / stride),
    )


def encoder_digest(model: WorldModel) -> str:
    """Digest of all weights that decide what latents a frame has."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.codec.state_dict().items()):
        if ".decoder." not in name:
            digest.update(tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def _made_by(path: Path) -> str:
    with safe_open(path, "pt") as file:
        return str((file.metadata() or {}).get("encoder"))


Reader = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], MemoryRead]
"""Reads stored frames for target cameras; arguments and result as for `read_frames`."""


def draw_sample(
    clips: LatentClips,
    count: int,
    config: SamplesConfig,
    rng: np.random.Generator,
    reader: Reader | None = None,
) -> Sample:
    """Draw a batch.

    Args:
        clips: Encoded clips.
        count: Batch size B.
        config: How samples are drawn.
        rng: Source of all chance.
        reader: Stands for the memory; `read_frames` if `None`.

    Returns:
        The batch, on the clips' device.
    """
    clips_count, length = clips.latents.shape[:2]
    device = clips.latents.device
    chance = torch.Generator(device).manual_seed(int(rng.integers(2**62)))
    row = rng.integers(clips_count, size=count)
    stride = rng.integers(1, config.largest_stride + 1, size=count)
    frame = rng.integers(config.largest_stride, length, size=count)
    before = frame - stride
    frames_kept = int(rng.integers(1, config.history + 1))
    # the preceding frame is always in the memory; the others come from anywhere but the target itself, which
    # is there on a revisit
    others = rng.integers(0, length - 1, size=(count, frames_kept - 1))
    others = others + (others >= frame[:, None])
    near = before[:, None] - rng.integers(0, 12, size=others.shape)
    others = np.where(rng.random(others.shape) < 0.5, np.maximum(near, 0), others)
    again = rng.random(count) < config.revisit
    if frames_kept > 1:
        others[again, 0] = frame[again]
    alone = bool(rng.random() < config.memory_dropout)
    numbers = (row, frame, np.concatenate([others, before[:, None]], axis=1))  # oldest first
    rows, frames, history = (torch.from_numpy(part).to(device) for part in numbers)  # [B], [B], [B, K]

    target = clips.latents[rows, frames].float()[:, None]
    pose = clips.cam2world[rows, frames][:, None]
    kept = clips.latents[rows[:, None], history].float()  # [B, K, C, h, w]
    if clips.redrawn is not None:
        again_drawn = clips.redrawn[rows[:, None], history].float()
        chosen = torch.rand(count, frames_kept, 1, 1, 1, generator=chance, device=device) < config.redrawn
        kept = torch.where(chosen, again_drawn, kept)
    poses = clips.cam2world[rows[:, None], history]  # [B, K, 4, 4]
    depth = clips.depth[rows[:, None], history]  # [B, K, h, w]

    def amount(largest: float, *shape: int) -> Tensor:
        return largest * torch.rand(shape, generator=chance, device=device)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=chance, device=device)

    preceding = None
    if alone:
        noise = normal(*target.shape)
        preceding = kept[:, -1:] + amount(config.preceding_noise, count, 1, 1, 1, 1) * noise
    # the target itself is held as it is: what is read exactly is to stay
    worn = (history != frames[:, None])[..., None, None, None].float()
    stored = kept + worn * amount(config.token_noise, count, 1, 1, 1, 1) * normal(*kept.shape)
    scale = normal(count, frames_kept, 1, 1) + normal(*depth.shape)
    depth = torch.where(depth > 0, depth, config.sky_depth)
    there = on_surface(depth, config.edge_threshold)
    depth = depth * torch.exp(config.depth_noise * scale)
    left_out = amount(config.missing, count, 1, 1, 1) * (amount(1.0, count, 1, 1, 1) < 0.5)
    there &= amount(1.0, *depth.shape) >= left_out
    there &= not alone
    read = (reader or read_frames)(stored, torch.where(there, depth, 0.0), poses, pose, clips.intrinsics)
    references = None
    if frames_kept > 1 and (config.reference_alone or not alone) and rng.random() < config.reference_share:
        references = stored[:, :1]
    return Sample(
        (rows, frames),
        target,
        pose,
        preceding,
        poses[:, -1:],
        read,
        references,
        clips.depth[rows, frames][:, None],
    )


def read_frames(
    latents: Tensor,  # [B, K, C, h, w]
    depth: Tensor,  # [B, K, h, w]
    poses: Tensor,  # [B, K, 4, 4]
    target: Tensor,  # [B, 1, 4, 4]
    intrinsics: Tensor,  # [3, 3]
) -> MemoryRead:
    """Read a memory that holds exactly these frames, for one target camera each.

    Args:
        latents: Stored tokens.
        depth: Their depth, 0 for tokens that are left out.
        poses: Cameras that saw them.
        target: Target cameras.
        intrinsics: In cells.

    Returns:
        The read, T = 1.
    """
    hw = (latents.shape[-2], latents.shape[-1])
    lens = intrinsics.expand(*poses.shape[:2], 3, 3)
    tokens = lift_tokens(depth, poses, lens)
    seen = splat(
        tokens.positions.flatten(1, 3),
        tokens.known.flatten(1),
        tokens.footprint.flatten(1),
        tokens.view_dir.flatten(1, 3),
        target,
        lens[:, :1],
        hw,
    )
    features = latents.permute(0, 1, 3, 4, 2).flatten(1, 3)  # [B, K*h*w, C]
    return MemoryRead(
        gather_tokens(features, seen.index),
        seen.mask,
        seen.depth,
        seen.offset,
        seen.log_scale,
        seen.view_cos,
    )
