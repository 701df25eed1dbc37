"""Sequences: what the full-size generator learns from, drawn from a file of encoded clips.

A stretch of a clip is the target; the frames before it precede; the memory holds these and some others of the
clip, written and read as in a world that has been there.

Source: paper, section on training; that other frames come from anywhere in the clip is ours.
"""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import unquote

import numpy as np
import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError, InputError
from mirage_sim.memory import SpatialMemory
from mirage_sim.model.world_model import WorldModel
from mirage_sim.sources.latents import EncodedClip, LatentFile
from mirage_sim.text.stored import fit_context, load_embeddings
from mirage_sim.training.config import SequencesConfig
from mirage_sim.world.config import WorldConfig
from mirage_sim.world.imagine import lay_out_condition
from mirage_sim.world.prompts import embed_prompts
from mirage_sim.world.references import choose_references
from mirage_sim.world.update import update
from mirage_sim.world.views import Views


@dataclass(frozen=True)
class Sequence:
    """A batch of sequences, on the model's device.

    Attributes:
        overlap: The clean frame before the target, [B, O, C, h, w].
        target: Clean latents to be learnt, [B, T, C, h, w].
        preceding: Latents before both, [B, P, C, h, w].
        references: Earlier views that overlap the target's, [B, R, C, h, w], or `None`.
        condition: What the branch sees, for the clean frame, the target and what precedes: [B, O + T + P, …].
        context: Embedded prompts, [B, L, D].
    """

    overlap: Tensor
    target: Tensor
    preceding: Tensor
    references: Tensor | None
    condition: Tensor
    context: Tensor


class Sequences:
    """Draws sequences from a file of latents, for one model."""

    def __init__(self, model: WorldModel, file: LatentFile, config: SequencesConfig | None = None) -> None:
        """Check that the file fits the model.

        Args:
            model: Its settings tell lengths, memory and prompt.
            file: Of the model's codec, see `open_latents`.
            config: How sequences are drawn.

        Raises:
            InputError: If pictures are of another size, or clips too short for a sequence.
            FileFormatError: If the file holds no clip, or a clip without depth, or a prompt is damaged or
                missing.
        """
        self.model, self.file = model, file
        self.config = config if config is not None else SequencesConfig()
        told, settings = file.settings, model.config
        size = (settings.height, settings.width)
        if (told.height, told.width) != size:
            raise InputError(
                f"height and width must be those of {file.path}, {told.height} and {told.width}, got {size}"
            )
        frames, needed = told.latent_shape[0], 1 + settings.segment_length
        if frames < needed:
            raise InputError(
                f"{file.path} must hold clips of {needed} latent frames for segment_length "
                f"{settings.segment_length}, got {frames}"
            )
        without = [key for key, has in file.has_depth().items() if not has]
        if without or not len(file):
            raise FileFormatError(f"{file.path} must hold clips with depth, got {without[:3] or 'none'}")
        self._prompts = self._read_prompts()
        self._empty_prompt = embed_prompts(model, None, 1)[0]
        if model.text_encoder is not None:
            model.text_encoder.unload()

    def draw(self, count: int, rng: np.random.Generator) -> Sequence:
        """Draw a batch.

        Args:
            count: Batch size B.
            rng: Source of all chance.

        Returns:
            The batch.

        Raises:
            FileFormatError: If a clip is damaged.
        """
        clips = [self.file.clip(int(index)) for index in rng.integers(len(self.file), size=count)]
        settings = self.model.config
        last = len(clips[0].latents) - settings.segment_length
        firsts = rng.integers(1, last + 1, size=count)
        return self.lay_out(clips, firsts.tolist(), rng)

    @torch.no_grad()
    def lay_out(self, clips: list[EncodedClip], firsts: list[int], rng: np.random.Generator) -> Sequence:
        """Lay sequences out.

        Args:
            clips: One for each.
            firsts: First target frame in each, at least 1; before a clip's first frame it is at rest, as a
                world is before its first step.
            rng: Chooses what else the memory holds, and which prompts are dropped.

        Returns:
            The batch; with as many references for each as for the one that has fewest.
        """
        settings, device = self.model.config, self.model.device
        before, length, preceding = settings.before, settings.segment_length, settings.preceding
        spans = [[max(0, each) for each in range(first - before, first + length)] for first in firsts]

        def stacked(name: str) -> Tensor:
            parts = [getattr(clip, name)[span].float() for clip, span in zip(clips, spans, strict=True)]
            return torch.stack(parts).to(device)  # [B, P + O + T, ...]

        latents = stacked("latents")
        views = Views(stacked("cam2world"), stacked("intrinsics"))
        memory = SpatialMemory(settings.memory, len(clips), device)
        for row, (clip, first) in enumerate(zip(clips, firsts, strict=True)):
            begun = max(0, first - before)
            elsewhere = [*range(begun), *range(first + length, len(clip.latents))]
            others = rng.permutation(elsewhere)[: int(rng.integers(0, len(elsewhere) + 1))]
            for frame in (*sorted(int(other) for other in others), *range(begun, first)):
                self._write(memory, row, clip, frame)
        order = [*range(preceding, before + length), *range(preceding if settings.hint_preceding else 0)]
        cameras = Views(*(part[:, order] for part in views))
        read = memory.read(*cameras, self.model.latent_hw)
        shown = memory.recall(read, cameras.cam2world)
        target = views.frames(slice(before, None))
        return Sequence(
            overlap=latents[:, preceding:before],
            target=latents[:, before:],
            preceding=latents[:, :preceding],
            references=self._references(memory, target, len(clips)),
            condition=lay_out_condition(self.model, shown),
            context=torch.stack([self._prompt(clip.name, rng) for clip in clips]),
        )

    def _write(self, memory: SpatialMemory, row: int, clip: EncodedClip, frame: int) -> None:
        """Write a frame of a clip into one world, as a step does."""
        worlds, device = memory.num_worlds, self.model.device

        def spread(part: Tensor) -> Tensor:
            return part[frame][None, None].expand(worlds, 1, *part.shape[1:]).to(device)

        assert clip.depth is not None  # noqa: S101  (checked when the file was opened)
        cameras = Views(spread(clip.cam2world), spread(clip.intrinsics))
        chosen = torch.arange(worlds, device=device) == row
        read = memory.read(*cameras, self.model.latent_hw, chosen)
        one = read.worlds(slice(row, row + 1))
        depth = spread(clip.depth)[:1]
        kept = spread(clip.keep)[:1] & (depth > 0)
        latents = spread(clip.latents)[:1].float()
        update(memory, self.model.config.memory, latents, one, depth, kept, cameras, chosen, (None, None))

    def _references(self, memory: SpatialMemory, views: Views, worlds: int) -> Tensor | None:
        every = torch.arange(worlds, device=self.model.device)
        count, hw = self.model.config.references, self.model.latent_hw
        groups = choose_references(memory, WorldConfig(), count, views, hw, every)
        fewest = min(0 if found is None else found.shape[1] for _, found in groups)
        if fewest == 0:
            return None
        rows = torch.cat([index for index, _ in groups])
        found = torch.cat([found[:, :fewest] for _, found in groups if found is not None])
        return found[rows.argsort()]

    def _read_prompts(self) -> dict[str, Tensor]:
        """Read the stored embedding of every video; the one of "" is for all."""
        place, settings = self.config.prompts, self.model.config
        if place is None:
            return {}
        names = {key.rpartition("@")[0] for key in self.file.keys} if place.is_dir() else {""}
        shape = settings.prompt_tokens, settings.generator.context_dim
        return {
            unquote(name): fit_context(
                load_embeddings(place / f"{name}.safetensors" if name else place)[0], *shape
            )
            for name in sorted(names)
        }

    def _prompt(self, name: str, rng: np.random.Generator) -> Tensor:
        if not self._prompts or rng.random() < self.config.drop_prompt:
            return self._empty_prompt
        return self._prompts[name if name in self._prompts else ""].to(self.model.device)
