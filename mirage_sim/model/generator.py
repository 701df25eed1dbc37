"""Generator: one denoising pass of backbone and memory branch over `[references | target | preceding]`.

This module walks through the parts of the backbone so that every token has its own timestep, references have
their own positions, and hints are added after the blocks they belong to, never to references.

Source: paper, sections on sequence and memory conditioning.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mirage_sim.errors import check_shape
from mirage_sim.model.backbone import Attention, Backbone, check_backend
from mirage_sim.model.config import GeneratorConfig
from mirage_sim.model.memory_branch import MemoryBranch, run_block
from mirage_sim.model.positions import sequence_rotary

TIMESTEPS = 1000.0  # the backbone counts noise levels from 0 to 1000


def empty_generator(config: GeneratorConfig) -> Generator:
    """A generator without weights on the "meta" device, which costs no memory."""
    with torch.device("meta"):
        return Generator(config)


class Generator(nn.Module):
    """Backbone, memory branch and the pass through both.

    Attributes:
        recompute: Whether the blocks' activations are computed again on the way back, rather than kept.
    """

    def __init__(self, config: GeneratorConfig | None = None) -> None:
        """Build both with random weights (the branch starts as a copy that changes nothing).

        Args:
            config: Shapes.
        """
        super().__init__()
        self.config = config if config is not None else GeneratorConfig()
        self.backbone = Backbone(self.config)
        self.branch = MemoryBranch(self.config, self.backbone)
        self.recompute = False

    @property
    def blocks(self) -> list[nn.Module]:
        """Blocks of branch and backbone, as they are run."""
        return [*self.branch.blocks, *self.backbone.blocks]

    def set_attention(self, backend: str) -> None:
        """Choose how attention is computed, in backbone and branch alike.

        Args:
            backend: Name of one of diffusers' attention back ends that is installed here.

        Raises:
            InputError: If it is unknown, not here, or would be downloaded.
        """
        check_backend(backend)
        for part in self.modules():
            if isinstance(part, Attention):
                part.backend = backend

    def compile_blocks(self) -> None:
        """Compile the blocks of backbone and branch, in place; the first pass of every length is slow."""
        for block in self.blocks:
            block.compile()

    def token_grid(self, hw: tuple[int, int]) -> tuple[int, int]:
        """Tokens per column and row of a latent frame of `hw` cells."""
        rows, columns = self.config.patch_hw
        return hw[0] // rows, hw[1] // columns

    def forward(
        self,
        target: Tensor,  # [B, T, C, h, w]
        sigma: Tensor,  # [B, T, h', w']
        context: Tensor,  # [B, L, context_dim]
        preceding: Tensor | None = None,  # [B, P, C, h, w]
        references: Tensor | None = None,  # [B, R, C, h, w]
        condition: Tensor | None = None,  # [B, T or T+P, Cc, h, w]
        hint_scale: float = 1.0,
    ) -> Tensor:
        """Predict the velocity `start - latents` of the target frames.

        Args:
            target: Noisy target latents.
            sigma: Noise level of every target token, in [0, 1].
            context: Prompt embedding, or camera motion for the embedded model.
            preceding: Clean latents before the target.
            references: Clean latents of earlier views that overlap the target's.
            condition: What the memory holds for the first frames after the references (target, or target and
                preceding); `None` leaves the branch out.
            hint_scale: Factor of every hint.

        Returns:
            Velocity [B, T, C, h, w].

        Raises:
            InputError: If a shape does not fit.
        """
        check_shape("target", target, ["B", "T", self.config.channels, "h", "w"])
        batch, frames, _, height, width = target.shape
        grid = self.token_grid((height, width))
        check_shape("sigma", sigma, [batch, frames, *grid])
        before = references.shape[1] if references is not None else 0
        after = preceding.shape[1] if preceding is not None else 0
        per_frame = grid[0] * grid[1]

        dtype = self.backbone.patch_embedding.weight.dtype
        parts = [part for part in (references, target, preceding) if part is not None]
        sequence = torch.cat(parts, dim=1).transpose(1, 2).to(dtype)  # [B, C, R+T+P, h, w]
        hidden = self.backbone.patch_embedding(sequence).flatten(2).transpose(1, 2).contiguous()  # [B, S, D]

        levels = torch.zeros(
            batch, before + frames + after, per_frame, device=target.device, dtype=torch.float32
        )
        levels[:, before : before + frames] = sigma.flatten(2)
        embedded, time, context = self._embed(levels.flatten(1), context.to(dtype))
        rotary = sequence_rotary(before, frames + after, *grid, self.config.head_dim, target.device)

        hints: dict[int, Tensor] = {}
        first = before * per_frame
        if condition is not None:
            check_shape("condition", condition, [batch, None, self.config.condition_channels, height, width])
            last = first + condition.shape[1] * per_frame
            hints = dict(
                zip(
                    self.branch.places,
                    self.branch(
                        condition.transpose(1, 2).to(dtype),
                        hidden[:, first:last],
                        context,
                        time[:, first:last],
                        (rotary[0][:, first:last], rotary[1][:, first:last]),
                        self.recompute,
                    ),
                    strict=True,
                )
            )
        for index, block in enumerate(self.backbone.blocks):
            hidden = run_block(block, self.recompute, hidden, context, time, rotary)
            if index in hints:
                hint = hints[index] if hint_scale == 1.0 else hint_scale * hints[index]
                behind = hidden.shape[1] - first - hint.shape[1]
                hidden = hidden + nn.functional.pad(hint, (0, 0, first, behind))
        chosen = slice(first, first + frames * per_frame)
        return self._project(hidden[:, chosen], embedded[:, chosen], frames, grid)

    def _embed(self, levels: Tensor, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Embed noise levels [B, S] and context: [B, S, D], [B, S, 6, D], [B, L, D]."""
        embedded, time, text = self.backbone.condition_embedder(levels * TIMESTEPS, context)
        return embedded, time, text

    def _project(self, hidden: Tensor, embedded: Tensor, frames: int, grid: tuple[int, int]) -> Tensor:
        """Turn tokens [B, S, D] into latents [B, T, C, h, w]."""
        backbone = self.backbone
        shift, scale = (backbone.scale_shift_table[:, None] + embedded[:, :, None]).unbind(dim=2)
        normed = (backbone.norm_out(hidden.float()) * (1 + scale) + shift).type_as(hidden)
        patches = backbone.proj_out(normed)  # [B, S, 2*2*C]
        rows, columns = self.config.patch_hw
        patches = patches.unflatten(1, (frames, *grid)).unflatten(-1, (rows, columns, -1))
        latents = patches.permute(0, 1, 6, 2, 4, 3, 5)  # [B, T, C, h', 2, w', 2]
        whole: Tensor = latents.flatten(5, 6).flatten(3, 4).float()
        return whole
