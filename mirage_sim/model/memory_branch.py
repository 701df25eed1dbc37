"""Memory branch: a side chain of the backbone's blocks that turns what was read into hints.

A patch embedding of the condition, then one transformer block for every second block of the backbone. The
first adds the backbone's embedded tokens to its input; each emits a hint through a linear layer that starts
at zero, so that an untrained branch changes nothing.

Source: paper, section on memory conditioning (ControlNet/VACE kind).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mirage_sim.model.backbone import Backbone, Block
from mirage_sim.model.config import GeneratorConfig


def _zero(layer: nn.Linear) -> nn.Linear:
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def run_block(block: nn.Module, recompute: bool, *given: Any) -> Tensor:
    """Run a block, and keep its input alone for the way back if its activations are to be computed again."""
    if recompute and torch.is_grad_enabled():
        kept: Tensor = checkpoint(block, *given, use_reentrant=False)
        return kept
    done: Tensor = block(*given)
    return done


class MemoryBranch(nn.Module):
    """Transformer blocks beside every few blocks of the backbone, beginning with its first."""

    def __init__(self, config: GeneratorConfig, backbone: Backbone) -> None:
        """Build the branch; its blocks start as copies of the backbone's.

        Args:
            config: Of backbone and branch.
            backbone: The generator's backbone.
        """
        super().__init__()
        width = config.heads * config.head_dim
        self.places = tuple(range(0, config.layers, config.branch_every))
        self.patch_embedding = nn.Conv3d(
            config.condition_channels, width, config.patch_size, config.patch_size
        )
        self.before_proj = _zero(nn.Linear(width, width))
        self.blocks = nn.ModuleList(Block(width, config.heads, config.ffn_dim) for _ in self.places)
        self.after_proj = nn.ModuleList(_zero(nn.Linear(width, width)) for _ in self.places)
        self.start_from(backbone)

    def start_from(self, backbone: Backbone) -> None:
        """Copy the weights of the backbone's blocks that the branch's blocks stand beside."""
        for block, place in zip(self.blocks, self.places, strict=True):
            block.load_state_dict(backbone.blocks[place].state_dict())

    def forward(
        self,
        condition: Tensor,  # [B, Cc, F, h, w]
        tokens: Tensor,  # [B, S, D]
        context: Tensor,  # [B, L, D]
        time: Tensor,  # [B, S, 6, D]
        rotary: tuple[Tensor, Tensor],  # [1, S, 1, d]
        recompute: bool = False,
    ) -> list[Tensor]:
        """Compute one hint per place.

        Args:
            condition: What was read for the frames whose tokens are given.
            tokens: The backbone's embedded tokens of those frames.
            context: The backbone's embedded prompt or motion.
            time: The backbone's projected timesteps of those tokens.
            rotary: Rotary embedding of those tokens.
            recompute: Whether activations are computed again on the way back.

        Returns:
            Hints [B, S, D], in the order of `places`.
        """
        embedded = self.patch_embedding(condition).flatten(2).transpose(1, 2)  # [B, S, D]
        hidden = self.before_proj(embedded) + tokens
        hints = []
        for block, project in zip(self.blocks, self.after_proj, strict=True):
            hidden = run_block(block, recompute, hidden, context, time, rotary)
            hints.append(project(hidden))
        return hints
