"""Stage 8: the refiner learns its flow: what noisy latents come from, given the generator's draft.

Source: flow matching as for the generator, with the loss scaled as in EDM (arXiv 2206.00364).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from mirage_sim.evaluation.metrics import frechet_distance
from mirage_sim.model.refiner import output_scales
from mirage_sim.model.sampler import sample as draw_latents
from mirage_sim.model.world_model import WorldModel
from mirage_sim.training.config import StageConfig
from mirage_sim.training.generator import Task, make_task
from mirage_sim.training.loop import VALIDATION_BATCHES, BatchLoss, cell_error, run_stage
from mirage_sim.training.precision import mixed_precision
from mirage_sim.training.samples import LatentClips, SamplesConfig, draw_sample
from mirage_sim.world.views import view_geometry

LEAST_SHARE = 0.1  # share of noise below which nothing is left to learn
DRAFTS_PER_FRAME = 2 / 3  # samples that the steps pick from, by the number of frames recorded
VALIDATION_STEPS = 3


@dataclass(frozen=True)
class Draft:
    """What the refiner is given, and the answer.

    Attributes:
        latents: What was carried over and imagined, [B, 1, C, h, w].
        known: bool [B, 1, h, w].
        geometry: [B, 6, h, w], see `depth_geometry`.
        target: Clean latents, [B, 1, C, h, w].
    """

    latents: Tensor
    known: Tensor
    geometry: Tensor
    target: Tensor

    def pick(self, rows: Tensor) -> Draft:
        """Take some samples out of many."""
        parts = (value[rows] for value in vars(self).values())
        return Draft(*(part if part.dtype == torch.bool else part.float() for part in parts))


@torch.no_grad()
def make_draft(
    model: WorldModel, clips: LatentClips, count: int, samples: SamplesConfig, rng: np.random.Generator
) -> Draft:
    """Draw a batch and let the generator imagine it as the world does.

    Args:
        model: World model whose generator is trained.
        clips: Encoded clips.
        count: Batch size B.
        samples: How samples are drawn.
        rng: Source of all chance.

    Returns:
        The batch, on the model's device.
    """
    sample = draw_sample(clips, count, samples, rng)
    task = make_task(model, sample, rng, from_noise=0.0)
    lens = clips.intrinsics.expand(count, 1, 3, 3)
    return Draft(
        _imagine(model, task).float(),
        sample.read.mask,
        view_geometry(model.config.memory, sample.read, sample.pose, lens),
        task.target,
    )


def make_drafts(
    model: WorldModel, clips: LatentClips, count: int, batch_size: int, samples: SamplesConfig, seed: int
) -> Draft:
    """Draw many drafts once, in 16 bit: drawing one costs as much as half a step of training.

    Args:
        model: World model whose generator is trained.
        clips: Encoded clips.
        count: Least number of drafts.
        batch_size: Drafts drawn together.
        samples: How samples are drawn.
        seed: Seeds every batch.

    Returns:
        The drafts.
    """
    batches = []
    for index in tqdm(range(-(-count // batch_size)), desc="drafts", mininterval=5.0):
        with mixed_precision(model.device):
            draft = make_draft(model, clips, batch_size, samples, np.random.default_rng([seed, 1, index]))
        parts = vars(draft).values()
        batches.append([part if part.dtype == torch.bool else part.half() for part in parts])
    return Draft(*(torch.cat(column) for column in zip(*batches, strict=True)))


def pool_size(clips: LatentClips, config: StageConfig) -> int:
    """Count of drafts worth drawing: no more than there are steps for."""
    return min(int(DRAFTS_PER_FRAME * clips.depth[..., 0, 0].numel()), config.steps * config.batch_size)


def pick_drafts(drafts: Draft, count: int, rng: np.random.Generator) -> tuple[Draft, torch.Generator]:
    """Pick a batch, and make a generator on its device for whatever else is drawn for it."""
    device = drafts.target.device
    rows = torch.from_numpy(rng.integers(len(drafts.known), size=count)).to(device)
    return drafts.pick(rows), torch.Generator(device).manual_seed(int(rng.integers(2**62)))


def _imagine(model: WorldModel, task: Task) -> Tensor:
    def velocity(noisy: Tensor, sigma: Tensor) -> Tensor:
        flow: Tensor = model.generator(
            noisy, sigma, task.context, task.preceding, task.references, task.condition
        )
        return flow

    patch = model.config.generator.patch_hw
    return draw_latents(velocity, task.start, task.fraction, patch, model.config.sampler)


def refine_loss(module: nn.Module, draft: Draft, noisy: Tensor, share: Tensor, wanted: Tensor) -> Tensor:
    """Squared error of what the refiner tells of unknown cells, by what the noise leaves open.

    Args:
        module: The refiner, perhaps wrapped for several processes.
        draft: B samples.
        noisy: Latents on the flow, [B, C, h, w].
        share: Shares of noise in them, [B, 1, 1, 1].
        wanted: What it should tell, [B, C, h, w].

    Returns:
        Scalar.
    """
    known = draft.known.flatten(0, 1)[:, None]
    told = module(noisy, share, draft.latents.flatten(0, 1), known, draft.geometry)
    open_, unknown = output_scales(share)[1], (~known).float()
    return cell_error((told / open_)[:, None], (wanted / open_)[:, None], unknown[:, None])


def flow_loss(module: nn.Module, draft: Draft, noise: Tensor, chance: torch.Generator) -> Tensor:
    """Error of what the refiner tells at random shares of noise.

    Args:
        module: The refiner, perhaps wrapped for several processes.
        draft: B samples.
        noise: Standard normal noise, [B, C, h, w].
        chance: Draws the shares.

    Returns:
        Scalar.
    """
    level = torch.rand(len(noise), 1, 1, 1, generator=chance, device=noise.device)
    share, target = LEAST_SHARE + (1.0 - LEAST_SHARE) * level, draft.target.flatten(0, 1)
    return refine_loss(module, draft, torch.lerp(target, noise, share), share, target)


@torch.no_grad()
def imagined_figures(
    model: WorldModel, held_out: LatentClips, samples: SamplesConfig, count: int, steps: int
) -> dict[str, float]:
    """Judge what the refiner makes of unknown cells of held-out samples.

    Args:
        model: World model.
        held_out: Encoded validation clips.
        samples: How samples are drawn.
        count: Samples a batch.
        steps: Passes of the refiner.

    Returns:
        Mean squared error of the draft and of what was made of it, squared steps from cell to cell over the
        truth's, and Fréchet distance of single cells.
    """
    error = draft_error = cells = 0.0
    squares = [0.0, 0.0]
    features: tuple[list[Tensor], list[Tensor]] = ([], [])
    for index in range(VALIDATION_BATCHES):
        rng = np.random.default_rng([7, index])
        with mixed_precision(model.device):
            draft = make_draft(model, held_out, count, samples, rng)
            noise = torch.from_numpy(rng.standard_normal(draft.target.shape, dtype=np.float32))
            made = model.refiner.refine(
                draft.latents, draft.known, draft.geometry, noise.to(draft.target.device), steps
            )
        imagined = (~draft.known)[:, :, None].float()
        share = float(imagined.sum())
        error += share * float(cell_error(made, draft.target, imagined))
        draft_error += share * float(cell_error(draft.latents, draft.target, imagined))
        cells += share
        both = imagined[..., 1:] * imagined[..., :-1]
        for place, latents in enumerate((made, draft.target)):
            squares[place] += float((latents.diff(dim=-1).square() * both).sum())
            features[place].append(latents.movedim(2, -1)[~draft.known].cpu())
    distance = frechet_distance(torch.cat(features[0]), torch.cat(features[1])) if cells > 1 else 0.0
    return {
        "validation_draft": draft_error / max(cells, 1.0),
        "validation_imagined": error / max(cells, 1.0),
        "validation_contrast": squares[0] / max(squares[1], 1e-6),
        "validation_frechet": distance,
    }


def train_refine(
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None = None,
) -> None:
    """Train the refiner in place.

    Args:
        model: World model whose earlier stages are trained.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        samples: How samples are drawn.
    """
    run_refiner_stage("refine", model, clips, held_out, config, out, samples, flow_loss, VALIDATION_STEPS)


def run_refiner_stage(
    name: str,
    model: WorldModel,
    clips: LatentClips,
    held_out: LatentClips,
    config: StageConfig,
    out: Path,
    samples: SamplesConfig | None,
    loss_of: Callable[[nn.Module, Draft, Tensor, torch.Generator], Tensor],
    passes: int,
) -> None:
    """Train the refiner in place on drafts that are drawn once.

    Args:
        name: Of the stage.
        model: World model whose earlier stages are trained.
        clips: Encoded training clips.
        held_out: Encoded validation clips, for the log only.
        config: Length and rate.
        out: Folder of the run.
        samples: How samples are drawn.
        loss_of: Given the (wrapped) refiner, a batch, noise [B, C, h, w] and a source of chance, the loss.
        passes: Of the refiner, when it is validated.
    """
    drawn = samples if samples is not None else SamplesConfig()
    model.requires_grad_(False)
    model.refiner.requires_grad_(True)
    drafts = make_drafts(model, clips, pool_size(clips, config), config.batch_size, drawn, config.seed)

    def batch_loss(module: nn.Module) -> BatchLoss:
        def loss(rng: np.random.Generator) -> Tensor:
            draft, chance = pick_drafts(drafts, config.batch_size, rng)
            noise = torch.randn(draft.target[:, 0].shape, generator=chance, device=chance.device)
            return loss_of(module, draft, noise, chance)

        return loss

    def validate(_: nn.Module) -> dict[str, float]:
        return imagined_figures(model, held_out, drawn, config.batch_size, passes)

    model.refiner.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    run_stage(name, model.refiner, batch_loss, config, out, validate)
    model.requires_grad_(False)
