"""Keyframes: a bounded ring of earlier views per world, kept for three steps of the method.

The free-space filter asks them what they looked through, and the generator takes its references from them.
A second, denser ring holds glimpses: cells that were shown but have no sure place in space, such as those at
the edges of things, for when the same camera looks again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from mirage_sim.errors import InputError, check_shape


@dataclass(frozen=True)
class KeyframesConfig:
    """Which views are kept.

    Attributes:
        count: Views per world at most; 0 keeps none. A full ring replaces its oldest.
        translation: Metres from every kept camera at which a view is new ...
        rotation_deg: ... or degrees by which it has to be turned from those nearer than that.
    """

    count: int = 16
    translation: float = 0.5
    rotation_deg: float = 20.0

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.count < 0:
            raise InputError(f"count must be 0 or more keyframes, got {self.count}")
        if not (self.translation >= 0 and self.rotation_deg >= 0):
            raise InputError(
                "translation and rotation_deg must be 0 or more, "
                f"got {self.translation} and {self.rotation_deg}"
            )


@dataclass(frozen=True)
class KeyframeViews:
    """Kept views of every world.

    Attributes:
        latents: Latent frames `[B, K, C, h, w]` in 16 bits.
        depth: Z-depth `[B, K, h, w]` in metres, 0 where unknown or not to be trusted.
        cam2world: Cameras `[B, K, 4, 4]`.
        intrinsics: Intrinsics `[B, K, 3, 3]` in cells.
        valid: Boolean `[B, K]`, which places of the ring are taken.
        order: int64 `[B, K]`, count of views kept in this world before this one; larger is later.
    """

    latents: Tensor
    depth: Tensor
    cam2world: Tensor
    intrinsics: Tensor
    valid: Tensor
    order: Tensor


class Keyframes:
    """Ring of keyframes of B worlds; the buffers are made when the first view tells the size of a frame."""

    def __init__(
        self,
        config: KeyframesConfig,
        num_worlds: int,
        channels: int,
        dtype: torch.dtype,
        device: torch.device,
        name: str = "keyframes",
    ) -> None:
        """Make empty rings.

        Args:
            config: Which views are kept.
            num_worlds: Number of worlds B.
            channels: Latent channels C.
            dtype: Dtype of the kept latents.
            device: Where they live.
            name: What messages call the ring.
        """
        self.config = config
        self._channels, self._dtype, self._name = channels, dtype, name
        self._kept = torch.zeros(num_worlds, dtype=torch.int64, device=device)  # [B]
        self._views = self._make(num_worlds, 0, 0, device)

    @property
    def views(self) -> KeyframeViews:
        """The kept views, not copied."""
        return self._views

    @property
    def bytes_per_view(self) -> int:
        """Bytes that one kept view takes."""
        view = self._views
        parts = (view.latents, view.depth, view.cam2world, view.intrinsics, view.order)
        return sum(math.prod(part.shape[2:]) * part.element_size() for part in parts)

    @torch.no_grad()
    def add(
        self,
        latents: Tensor,  # [B, C, h, w]
        depth: Tensor,  # [B, h, w]
        cam2world: Tensor,  # [B, 4, 4]
        intrinsics: Tensor,  # [B, 3, 3]
        worlds: Tensor | None = None,  # [B]
    ) -> Tensor:
        """Keep one view per world where it is new enough.

        Args:
            latents: Latent frames `[B, C, h, w]`.
            depth: Z-depth `[B, h, w]` in metres, 0 where it is not to be trusted.
            cam2world: Cameras `[B, 4, 4]`.
            intrinsics: Intrinsics `[B, 3, 3]` in cells.
            worlds: Boolean `[B]`, worlds that may keep it; all if left out.

        Returns:
            Boolean `[B]`, which worlds kept their view.

        Raises:
            InputError: If a shape is wrong or a frame has another size than those kept.

        Source: ours.
        """
        count = self._kept.shape[0]
        check_shape("latents", latents, [count, self._channels, "h", "w"])
        height, width = latents.shape[-2:]
        check_shape("depth", depth, [count, height, width])
        if self.config.count == 0:
            return torch.zeros(count, dtype=torch.bool, device=self._kept.device)
        if self._views.depth.shape[2:] != (height, width):
            if self._views.depth.shape[2] and bool(self._views.valid.any()):
                raise InputError(
                    f"latents must keep the size {list(self._views.depth.shape[2:])} of the frames written "
                    f"before, got {[height, width]}"
                )
            self._views = self._make(count, height, width, self._kept.device)
        new = ~self._alike(cam2world).any(dim=1)
        new = new if worlds is None else new & worlds
        rows = new.nonzero().flatten()  # [b]
        if not len(rows):
            return new
        ring = self._views
        slot = self._kept[rows] % self.config.count  # [b]
        values = (latents, depth, cam2world, intrinsics, torch.ones_like(new), self._kept)
        parts = (ring.latents, ring.depth, ring.cam2world, ring.intrinsics, ring.valid, ring.order)
        for part, value in zip(parts, values, strict=True):
            part[rows, slot] = value[rows].to(part.dtype)
        self._kept += new
        return new

    def find(self, cam2world: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Give the view kept from where cameras are.

        Args:
            cam2world: Cameras `[B, 4, 4]`.

        Returns:
            Boolean `[B]`, which worlds have one; its latents `[B, C, h, w]` and depth `[B, h, w]`,
            meaningless where there is none.
        """
        alike = self._alike(cam2world)  # [B, K]
        rows, place = (
            torch.arange(len(alike), device=alike.device, dtype=torch.int64),
            alike.int().argmax(dim=1),
        )
        return alike.any(dim=1), self._views.latents[rows, place], self._views.depth[rows, place]

    def reset(self, worlds: Tensor) -> None:
        """Forget the views of some worlds.

        Args:
            worlds: Boolean `[B]`, worlds to reset.
        """
        self._kept.masked_fill_(worlds, 0)
        self._views.valid.masked_fill_(worlds[:, None], False)

    def fork(self, index: Tensor) -> Keyframes:
        """Copy worlds.

        Args:
            index: int64 `[B']`, which world each of the new rings copies.

        Returns:
            Independent rings of B' worlds.
        """
        made = Keyframes(
            self.config, index.shape[0], self._channels, self._dtype, self._kept.device, self._name
        )
        made._kept = self._kept[index]
        made._views = KeyframeViews(*(part[index] for part in vars(self._views).values()))
        return made

    def assign(self, source: Keyframes, origin: Tensor, target: Tensor) -> None:
        """Replace the views of some worlds by those of other rings' worlds.

        Args:
            source: Rings of the same configuration.
            origin: int64 `[M]`, worlds of `source` to copy.
            target: int64 `[M]`, worlds to replace.

        Raises:
            InputError: If both hold frames, of different sizes.
        """
        theirs, ours = source._views.depth.shape[2:], self._views.depth.shape[2:]
        if theirs != ours:
            staying = torch.ones(self._kept.shape[0], dtype=torch.bool, device=self._kept.device)
            staying[target] = False
            if not bool(source._views.valid.any()):
                self._kept[target] = source._kept[origin]
                self._views.valid[target] = False
                return
            if bool(self._views.valid[staying].any()):
                raise InputError(f"source must hold frames of {list(ours)} cells, got {list(theirs)}")
            self._views = self._make(self._kept.shape[0], theirs[0], theirs[1], self._kept.device)
        self._kept[target] = source._kept[origin]
        for mine, other in zip(vars(self._views).values(), vars(source._views).values(), strict=True):
            mine[target] = other[origin]

    def state_dict(self) -> dict[str, Tensor]:
        """Give every tensor of the rings; places not taken are zero."""
        taken = self._views.valid  # [B, K]
        views = {}
        for name, part in vars(self._views).items():
            there = taken.reshape(*taken.shape, *([1] * (part.dim() - 2)))
            views[name] = torch.where(there, part, part.new_zeros(()))
        return {"kept": self._kept, **views}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over what `state_dict` gave.

        Args:
            state: Tensors by name.

        Raises:
            InputError: If a tensor is missing or does not fit these rings.
        """
        worlds, count = self._kept.shape[0], self.config.count
        lead = [worlds, count]
        expected: dict[str, list[int | str]] = {
            "kept": [worlds],
            "latents": [*lead, self._channels, "h", "w"],
            "depth": [*lead, "h", "w"],
            "cam2world": [*lead, 4, 4],
            "intrinsics": [*lead, 3, 3],
            "valid": [*lead],
            "order": [*lead],
        }
        mine = self.state_dict()
        for name, shape in expected.items():
            if name not in state:
                raise InputError(f"state must hold {self._name}.{name}, got {sorted(state)}")
            check_shape(f"{self._name}.{name}", state[name], shape)
            if state[name].dtype != mine[name].dtype:
                raise InputError(f"{self._name}.{name} must be {mine[name].dtype}, got {state[name].dtype}")
        if state["latents"].shape[3:] != state["depth"].shape[2:]:
            raise InputError(f"{self._name}.depth must have the size of {self._name}.latents")
        device = self._kept.device
        moved = {name: state[name].to(device, copy=True) for name in expected}
        self._kept = moved.pop("kept")
        self._views = KeyframeViews(**moved)

    def _alike(self, cam2world: Tensor) -> Tensor:
        """Tell which kept views `[B, K]` cameras `[B, 4, 4]` do not differ from enough to be new."""
        kept = self._views.cam2world
        moved = kept[..., :3, 3] - cam2world[:, None, :3, 3]  # [B, K, 3]
        near = (moved * moved).sum(-1) < self.config.translation**2
        cosine = ((kept[..., :3, :3] * cam2world[:, None, :3, :3]).sum((-1, -2)) - 1) / 2  # [B, K]
        alike = cosine > math.cos(math.radians(min(self.config.rotation_deg, 180.0)))
        return near & alike & self._views.valid

    def _make(self, num_worlds: int, height: int, width: int, device: torch.device) -> KeyframeViews:
        """Allocate empty rings."""
        lead = (num_worlds, self.config.count)
        return KeyframeViews(
            latents=torch.zeros((*lead, self._channels, height, width), dtype=self._dtype, device=device),
            depth=torch.zeros((*lead, height, width), device=device, dtype=torch.float32),
            cam2world=torch.zeros((*lead, 4, 4), device=device, dtype=torch.float32),
            intrinsics=torch.zeros((*lead, 3, 3), device=device, dtype=torch.float32),
            valid=torch.zeros(lead, dtype=torch.bool, device=device),
            order=torch.zeros(lead, dtype=torch.int64, device=device),
        )
