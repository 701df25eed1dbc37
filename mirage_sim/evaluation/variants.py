"""Variants: the latent memory with one thing changed, for the table of ablations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from mirage_sim.errors import InputError
from mirage_sim.evaluation.methods import Method
from mirage_sim.evaluation.rollout import with_sampling
from mirage_sim.model.depth_head import DepthPrediction
from mirage_sim.model.world_model import WorldModel


class NoisyDepth(nn.Module):
    """A depth head whose depths are wrong by a share, drawn for every cell."""

    def __init__(self, head: nn.Module, share: float) -> None:
        """Wrap a head.

        Args:
            head: Predicts.
            share: Standard deviation of the error of log depth.
        """
        super().__init__()
        self._head, self._share = head, share
        self._chance = torch.Generator().manual_seed(0)

    def predict(self, latents: Tensor, geometry: Tensor) -> DepthPrediction:
        """Predict, and be wrong."""
        told: DepthPrediction = self._head.predict(latents, geometry)  # type: ignore[operator]
        error = torch.randn(told.depth.shape, generator=self._chance).to(told.depth.device)
        return told._replace(depth=told.depth * torch.exp(self._share * error))


class TrueDepth(nn.Module):
    """Tells the simulator's depths, view after view, whatever was generated."""

    def __init__(self) -> None:
        """Wait for `begin`."""
        super().__init__()
        self._left: list[Tensor] = []

    def begin(self, depths: Tensor) -> None:
        """Take the depths of the ways to come.

        Args:
            depths: [B, P, h, w] in metres at latent resolution, 0 for the sky.
        """
        self._left = list(depths.unbind(1))

    def predict(self, latents: Tensor, geometry: Tensor) -> DepthPrediction:
        """Tell the next view's depths."""
        del latents, geometry
        depth = self._left.pop(0)
        return DepthPrediction(depth, torch.zeros_like(depth), (depth > 0).float())


def _plain(model: WorldModel) -> Method:
    return Method("default", model)


def _with_head(make: Callable[[WorldModel], nn.Module]) -> Callable[[WorldModel], Method]:
    def build(model: WorldModel) -> Method:
        other = model.with_settings()
        other.depth_head = make(model)  # type: ignore[assignment]
        return Method("", other)

    return build


def _sampled(**asked: Any) -> Callable[[WorldModel], Method]:
    return lambda model: Method("", with_sampling(model, **asked))


def _remembering(**changes: Any) -> Callable[[WorldModel], Method]:
    def build(model: WorldModel) -> Method:
        return Method("", model.with_settings(memory=replace(model.config.memory, **changes)))

    return build


VARIANTS: dict[str, Callable[[WorldModel], Method]] = {
    "default": _plain,
    "depth from the simulator": _with_head(lambda _: TrueDepth()),
    "depth wrong by 5 %": _with_head(lambda model: NoisyDepth(model.depth_head, 0.05)),
    "depth wrong by 10 %": _with_head(lambda model: NoisyDepth(model.depth_head, 0.10)),
    "fusion off": _remembering(fuse=False),
    "extra channels off": _sampled(extras=False),
    "tokens in 8 bit": _remembering(dtype="float8"),
    "edge filter off": _remembering(filter_edges=False),
    "free-space filter off": _remembering(filter_free_space=False),
    "no glimpses": _remembering(glimpses=0),
    "one reference": _sampled(references=1),
    "known cells dreamt anew": _sampled(known_fraction=1.0),
    "no refiner": _sampled(refine_steps=0),
    **{f"{steps} sampling steps": _sampled(steps=steps) for steps in (2, 4, 8, 20)},
    **{f"{steps} refining passes": _sampled(refine_steps=steps) for steps in (1, 4, 8, 20)},
}


def make_variant(name: str, model: WorldModel) -> Method:
    """Set a variant up.

    Args:
        name: One of `VARIANTS`.
        model: The embedded model.

    Returns:
        The method, under the variant's name.

    Raises:
        InputError: If the name is unknown.
    """
    if name not in VARIANTS:
        raise InputError(f"variants must be among {list(VARIANTS)}, got {name!r}")
    return replace(VARIANTS[name](model), name=name)
