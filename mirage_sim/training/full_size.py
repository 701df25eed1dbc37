"""Full size: the memory branch, then low-rank adapters of the backbone, on a file of encoded clips.

Source: paper, section on training: two stages; noise levels drawn anew for every latent frame.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from mirage_sim.checkpoints import build_codec, build_generator, open_checkpoint
from mirage_sim.checkpoints.build import published_scale
from mirage_sim.checkpoints.load import configure, text_encoder
from mirage_sim.checkpoints.names import ADAPTERS, BRANCH
from mirage_sim.checkpoints.published import ADAPTERS_STEM, BRANCH_STEM, save_part
from mirage_sim.errors import InputError, StateError
from mirage_sim.evaluation.metrics import psnr
from mirage_sim.evaluation.report import write_sheet
from mirage_sim.model.images import tensor_to_frames
from mirage_sim.model.lora import add_lora
from mirage_sim.model.sampler import sample, shift_sigma
from mirage_sim.model.world_model import WorldModel, default_dtype
from mirage_sim.perception import Perceived, Seen
from mirage_sim.sources.latents import LatentFile, codec_hash, open_latents
from mirage_sim.training.config import FullSizeConfig, StageConfig
from mirage_sim.training.loop import BatchLoss, processes, run_stage
from mirage_sim.training.precision import mixed_precision
from mirage_sim.training.sequences import Sequence, Sequences

STAGES = ("branch", "lora")
VALIDATION_BATCHES = 4


class DepthIsKnown:
    """A `DepthEstimator` for training, where depth is in the file of latents."""

    needs_frames = False

    def estimate(self, seen: Seen) -> Perceived:
        """Refuse."""
        raise StateError("estimate needs a depth estimator: this model was opened to be trained")


def open_to_train(
    folder: Path, latents: Path, branch: Path | None = None, published: bool = False, **settings: Any
) -> tuple[WorldModel, LatentFile]:
    """Open full-size weights and a file of latents that their codec encoded.

    Args:
        folder: Weights of backbone and codec, see `open_checkpoint`.
        latents: What `mirage-sim encode` wrote; it tells the size of the pictures.
        branch: Published file of a memory branch; a new one if `None` and the folder has none.
        published: Whether a new branch sees what the published one does, rather than mask and geometry.
        settings: Further fields of `WorldModelConfig` that are to differ, such as `segment_length`.

    Returns:
        The model, on this process's device, and the file.

    Raises:
        InputError: If a setting does not fit.
        FileFormatError: If a file is missing, damaged, or of another codec.
    """
    told, device = LatentFile(latents).settings, processes().device
    dtype = default_dtype(device)
    checkpoint = open_checkpoint(folder, branch)
    if checkpoint.adapters:
        raise InputError(f"world_model must be without adapters to be trained, got some in {folder}")
    if published and not checkpoint.branch:
        shape = replace(checkpoint.config, condition_channels=2 * checkpoint.config.channels)
        checkpoint = replace(checkpoint, config=shape)
    sizes = {"height": told.height, "width": told.width}
    config = configure(folder, checkpoint, sizes | settings)
    codec, generator = build_codec(checkpoint, device, dtype), build_generator(checkpoint, device, dtype)
    text = text_encoder(folder, device, dtype, config)
    model = WorldModel(config, codec, generator, DepthIsKnown(), text_encoder=text)
    return model, open_latents(latents, codec_hash(codec))


def train_full_size(
    stage: str,
    model: WorldModel,
    clips: LatentFile,
    held_out: LatentFile | None,
    config: StageConfig,
    out: Path,
    how: FullSizeConfig | None = None,
) -> Path:
    """Train one stage, and write what it trained in the published names.

    Args:
        stage: "branch" (the backbone stays), or "lora" (adapters of the backbone; the branch stays).
        model: What `open_to_train` gave; changed in place.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log and pictures only.
        config: Length and rate.
        out: Folder of the run.
        how: Adapters, chance, and how the work is divided.

    Returns:
        `memory_branch.safetensors` or `lora.safetensors` under `out`.

    Raises:
        InputError: If the stage is unknown, or a file does not fit the model.
    """
    how = how if how is not None else FullSizeConfig()
    generator = model.generator
    drawn = Sequences(model, clips, how.sequences)
    watched = Sequences(model, held_out, how.sequences) if held_out is not None else None
    prepare(stage, model, how, config.seed)

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            return sequence_loss(model, module, drawn.draw(config.batch_size, rng), rng)

        return loss

    def validate(module: nn.Module) -> dict[str, float]:
        assert watched is not None  # noqa: S101  (else it is not called)
        errors = []
        with mixed_precision(model.device, cache_enabled=False):
            for index in range(VALIDATION_BATCHES):
                rng = np.random.default_rng([7, index])
                sequence = watched.draw(config.batch_size, rng)
                errors.append(float(sequence_loss(model, module, sequence, rng)))
            score = roll_out(model, module, watched, out / f"{stage}-rollout.png")
        return {"validation": float(np.mean(errors)), "rollout_psnr": score}

    shards = generator.blocks if how.shard else []
    about = identity(model, clips, how)
    run_stage(stage, generator, batch_loss, config, out, validate if watched else None, shards, about)
    return export(stage, model, out)


def identity(model: WorldModel, clips: LatentFile, how: FullSizeConfig) -> dict[str, Any]:
    """What decides how a run goes on, beside its length and rate.

    Args:
        model: Before training; its settings, and a digest of a sample of its weights.
        clips: Their settings and number.
        how: Adapters and prompts.

    Returns:
        Values that JSON can hold.
    """
    digest = hashlib.sha256()
    for tensor in model.generator.state_dict().values():
        some = tensor.detach().flatten()[:: max(1, tensor.numel() // 64)]
        digest.update(some.float().cpu().numpy().tobytes())
    return {
        "weights": digest.hexdigest(),
        "model": asdict(model.config),
        "clips": asdict(clips.settings) | {"number": len(clips)},
        "lora": asdict(how.lora),
        "prompts": [str(how.sequences.prompts), how.sequences.drop_prompt],
        "shard": how.shard,
    }


def prepare(stage: str, model: WorldModel, how: FullSizeConfig, seed: int = 0) -> None:
    """Freeze and free what a stage asks for; what is trained is kept in 32 bit.

    Args:
        stage: "branch" or "lora".
        model: Changed in place.
        how: Adapters, and whether activations are kept.
        seed: Of the adapters.

    Raises:
        InputError: If the stage is unknown.
    """
    if stage not in STAGES:
        raise InputError(f"stage must be one of {STAGES} at full size, got {stage!r}")
    model.requires_grad_(False)
    if stage == "branch":
        model.generator.branch.requires_grad_(True)
    else:
        torch.manual_seed(seed)
        add_lora(model.generator, how.lora)
    for parameter in model.generator.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    model.generator.recompute = how.recompute


def sequence_loss(
    model: WorldModel, module: nn.Module, sequence: Sequence, rng: np.random.Generator
) -> Tensor:
    """Squared error of the velocity of the target; every latent frame has its own noise level.

    Args:
        model: Settings.
        module: The generator, perhaps wrapped for several processes.
        sequence: The batch.
        rng: Source of all chance.

    Returns:
        Scalar.
    """
    settings, target, clean = model.config, sequence.target, sequence.overlap
    chance = torch.Generator(target.device).manual_seed(int(rng.integers(2**62)))
    noise = torch.randn(target.shape, generator=chance, device=target.device)
    level = torch.rand(*target.shape[:2], 1, 1, generator=chance, device=target.device)
    sigma = shift_sigma(level, settings.sampler.shift)  # [B, T, 1, 1]
    noisy = torch.cat([clean, torch.lerp(target, noise, sigma[..., None])], dim=1)
    levels = torch.cat([sigma.new_zeros(*clean.shape[:2], 1, 1), sigma], dim=1)
    levels = levels.expand(-1, -1, *model.generator.token_grid(model.latent_hw))
    velocity = module(noisy, levels, *_given(sequence), settings.hint_scale)
    error: Tensor = (velocity[:, clean.shape[1] :] - (noise - target)).square().mean()
    return error


def _given(sequence: Sequence) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    return sequence.context, sequence.preceding, sequence.references, sequence.condition


def roll_out(model: WorldModel, module: nn.Module, held_out: Sequences, picture: Path) -> float:
    """Generate a stretch of the first held-out clip, and show it beside what it should be.

    Args:
        model: Settings and codec.
        module: The generator; every process calls this.
        held_out: Tells the clip.
        picture: PNG that the first process writes: what the codec makes of the clip's latents, and of ours.

    Returns:
        PSNR in dB of the second against the first.
    """
    settings, clip = model.config, held_out.file.clip(0)
    sequence = held_out.lay_out([clip], [settings.before], np.random.default_rng(0))
    clean, chance = sequence.overlap, torch.Generator(model.device).manual_seed(0)
    noise = torch.randn(sequence.target.shape, generator=chance, device=model.device)
    start = torch.cat([clean, noise], dim=1)
    share = torch.ones(*start.shape[:2], *start.shape[-2:], device=model.device)
    share[:, : clean.shape[1]] = 0.0

    def velocity(noisy: Tensor, sigma: Tensor) -> Tensor:
        flow: Tensor = module(noisy, sigma, *_given(sequence), settings.hint_scale)
        return flow

    drawn = sample(velocity, start, share, settings.generator.patch_hw, settings.sampler)
    before = torch.cat([sequence.preceding, clean], dim=1)
    both = (sequence.target, drawn[:, clean.shape[1] :])
    wanted, made = (model.codec.decode(each, before)[0].clamp(-1.0, 1.0) for each in both)  # [F, 3, H, W]
    if processes().is_main_process:
        shown = slice(model.frames_per_latent - 1, None, model.frames_per_latent)
        rows = [list(tensor_to_frames(each[shown])) for each in (wanted, made)]
        header = [f"latent frame {number + 1}" for number in range(len(rows[0]))]
        write_sheet(picture, rows, header, ["held-out clip", "generated"])
    return float(psnr(made, wanted).mean())


def export(stage: str, model: WorldModel, out: Path) -> Path:
    """Write what a stage trained, gathered from all processes, in the published names.

    Args:
        stage: "branch" or "lora".
        model: Trained.
        out: Folder of the run.

    Returns:
        The file; it is there when every process is back.
    """
    gathered = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
    tensors: dict[str, Any] = get_model_state_dict(model.generator, options=gathered)
    path = out / f"{BRANCH_STEM if stage == 'branch' else ADAPTERS_STEM}.safetensors"
    if processes().is_main_process:
        if stage == "branch":
            save_part(
                {name.removeprefix("branch."): tensor for name, tensor in tensors.items()}, BRANCH, path
            )
        else:
            save_part(published_scale(model.generator, tensors), ADAPTERS, path)
    processes().wait_for_everyone()
    return path
