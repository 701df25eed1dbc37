"""State: everything that decides how a world goes on, in memory and on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mirage_sim.errors import FileFormatError
from mirage_sim.memory import Memory
from mirage_sim.memory.store import load_state, save_state

KIND = "world"


@dataclass(frozen=True)
class Context:
    """What the next segment sees beside the memory.

    Attributes:
        latents: Latent frames before the next one, oldest first, [B, P, C, h, w].
        poses: Their cameras, [B, P, 4, 4].
        first_latents: What precedes at the beginning: the first frame at rest, [B, P, C, h, w].
        first_pose: Its camera, [B, 4, 4].
        intrinsics: In pixels, [B, 3, 3].
        prompt: Embedded prompt, [B, L, D]; L = 0 without one.
        started: bool [B], which worlds have a first frame.
    """

    latents: Tensor
    poses: Tensor
    first_latents: Tensor
    first_pose: Tensor
    intrinsics: Tensor
    prompt: Tensor
    started: Tensor

    @classmethod
    def empty(
        cls,
        worlds: int,
        shape: tuple[int, int, int, int],  # P, C, h, w
        prompt: tuple[int, int],  # L, D
        device: torch.device,
    ) -> Context:
        """Zeros for worlds that have not begun."""
        return cls(
            torch.zeros(worlds, *shape, device=device, dtype=torch.float32),
            torch.zeros(worlds, shape[0], 4, 4, device=device, dtype=torch.float32),
            torch.zeros(worlds, *shape, device=device, dtype=torch.float32),
            torch.zeros(worlds, 4, 4, device=device, dtype=torch.float32),
            torch.zeros(worlds, 3, 3, device=device, dtype=torch.float32),
            torch.zeros(worlds, *prompt, device=device, dtype=torch.float32),
            torch.zeros(worlds, dtype=torch.bool, device=device),
        )

    @classmethod
    def beginning(cls, first: Tensor, pose: Tensor, intrinsics: Tensor, prompt: Tensor) -> Context:
        """Worlds at rest at their first frame: it, [B, P, C, h, w], is all that precedes."""
        started = torch.ones(len(first), dtype=torch.bool, device=first.device)
        poses = pose[:, None].expand(-1, first.shape[1], -1, -1)
        return cls(first, poses, first, pose, intrinsics, prompt, started)

    def at_rest(self) -> Context:
        """The same worlds at rest at their first frame."""
        return Context.beginning(self.first_latents, self.first_pose, self.intrinsics, self.prompt)

    def pick(self, index: Tensor) -> Context:
        """Copies of the worlds in `index`."""
        return Context(**{name: value[index] for name, value in vars(self).items()})

    @contextmanager
    def changing(self, index: Tensor) -> Iterator[None]:
        """Have worlds ask for a reset if their change in the block breaks off half-way."""
        try:
            yield
        except BaseException:
            self.started[index] = False
            raise

    def put(self, index: Tensor, other: Context) -> None:
        """Replace the worlds in `index` by those of `other`."""
        for name, value in vars(self).items():
            value[index] = getattr(other, name)

    def push(self, index: Tensor, latents: Tensor, poses: Tensor) -> None:
        """Append new frames [b, T, …] of the worlds in `index`; the oldest ones drop out."""
        for held, new in ((self.latents, latents), (self.poses, poses)):
            held[index] = torch.cat([held[index], new], dim=1)[:, -held.shape[1] :]


@dataclass(frozen=True)
class WorldState:
    """A copy of some worlds that later steps do not touch.

    Attributes:
        memory: Their memory.
        context: What their next segment sees.
        seeds: What each world's noise is drawn from.
    """

    memory: Memory
    context: Context
    seeds: list[int]

    @property
    def num_worlds(self) -> int:
        """How many worlds there are."""
        return self.memory.num_worlds

    def save(self, folder: Path | str, about: dict[str, Any]) -> None:
        """Write the state, whole or not at all.

        Args:
            folder: Made if missing.
            about: What JSON can hold: model, settings, extras; extras may also hold tensors by name.

        Raises:
            OSError: If it cannot be written; an earlier save there stays whole.
        """
        tensors = {f"memory.{name}": value for name, value in self.memory.state_dict().items()}
        tensors |= {f"context.{name}": value for name, value in vars(self.context).items()}
        tensors["seeds"] = torch.tensor(self.seeds, dtype=torch.int64, device="cpu")
        extra = about.get("extra", {})
        tensors |= {f"extra.{name}": value for name, value in extra.items() if isinstance(value, Tensor)}
        plain = {name: value for name, value in extra.items() if not isinstance(value, Tensor)}
        save_state(folder, KIND, tensors, {**about, "extra": plain})

    @classmethod
    def load(
        cls,
        folder: Path | str,
        make_memory: Callable[[int], Memory],
        device: torch.device,
        model: tuple[str, str],
    ) -> tuple[WorldState, dict[str, Any]]:
        """Read what `save` wrote.

        Args:
            folder: Where it was saved.
            make_memory: Makes an empty memory for so many worlds, of the kind that was saved.
            device: Where the state goes.
            model: Id and hash of the weights that the world must have been generated with.

        Returns:
            The state and what was said about it.

        Raises:
            FileFormatError: If a file is missing, truncated, tampered with, or of another kind or version.
        """
        tensors, about = load_state(folder, KIND)
        theirs = (about.get("model_id"), about.get("weights_sha256"))
        if theirs != model:
            raise FileFormatError(f"{folder} must hold a world of model {model}, got one of {theirs}")

        def part(name: str) -> dict[str, Tensor]:
            prefix = name + "."
            return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}

        try:
            context = Context(**{key: value.to(device) for key, value in part("context").items()})
            memory = make_memory(len(context.started))
            memory.load_state_dict({key: value.to(device) for key, value in part("memory").items()})
            seeds: list[int] = tensors["seeds"].tolist()
        except (TypeError, ValueError, KeyError) as error:
            raise FileFormatError(f"{folder} must hold a world of this model, got {error}") from error
        about["extra"] = {**about.get("extra", {}), **part("extra")}
        return cls(memory, context, seeds), about
