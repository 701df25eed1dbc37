"""The published models by module names and shapes, tiny: names come from structure, not from a table."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from mirage_sim.model.config import GeneratorConfig

TINY = GeneratorConfig(
    channels=4,
    condition_channels=8,
    heads=2,
    head_dim=12,
    layers=4,
    ffn_dim=32,
    context_dim=16,
    patch_size=(1, 2, 2),
    branch_every=2,
)


class Table(nn.Module):
    """A module with one lone parameter."""

    def __init__(self, name: str, *shape: int) -> None:
        super().__init__()
        self.register_parameter(name, nn.Parameter(torch.randn(shape)))


def tree(**parts: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict(parts)


def attention(width: int) -> nn.ModuleDict:
    layers = {name: nn.Linear(width, width) for name in ("q", "k", "v", "o")}
    return tree(**layers, norm_q=Table("weight", width), norm_k=Table("weight", width))


def block(width: int, hidden: int) -> nn.ModuleDict:
    parts = tree(
        self_attn=attention(width),
        norm3=nn.LayerNorm(width),
        cross_attn=attention(width),
        ffn=nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width)),
    )
    parts.register_parameter("modulation", nn.Parameter(torch.randn(1, 6, width)))
    return parts


def backbone(c: GeneratorConfig = TINY) -> dict[str, Tensor]:
    """Tensors of the official backbone."""
    width, patch = c.heads * c.head_dim, c.patch_size
    head = tree(head=nn.Linear(width, c.channels * patch[0] * patch[1] * patch[2]))
    head.register_parameter("modulation", nn.Parameter(torch.randn(1, 2, width)))
    whole = tree(
        patch_embedding=nn.Conv3d(c.channels, width, patch, patch),
        text_embedding=nn.Sequential(nn.Linear(c.context_dim, width), nn.GELU(), nn.Linear(width, width)),
        time_embedding=nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width)),
        time_projection=nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width)),
        blocks=nn.ModuleList(block(width, c.ffn_dim) for _ in range(c.layers)),
        head=head,
    )
    return state(whole)


def branch(c: GeneratorConfig = TINY) -> dict[str, Tensor]:
    """Tensors of the published memory branch."""
    width = c.heads * c.head_dim
    blocks = nn.ModuleList()
    for index in range(0, c.layers, c.branch_every):
        part = block(width, c.ffn_dim)
        if index == 0:
            part["before_proj"] = nn.Linear(width, width)
        part["after_proj"] = nn.Linear(width, width)
        blocks.append(part)
    embedding = nn.Conv3d(c.condition_channels, width, c.patch_size, c.patch_size)
    return state(tree(vace_patch_embedding=embedding, vace_blocks=blocks))


def adapters(
    c: GeneratorConfig = TINY, rank: int = 3, layers: tuple[str, ...] = ("q", "v")
) -> dict[str, Tensor]:
    """Published adapters of the self-attention."""
    width = c.heads * c.head_dim
    made = {}
    for index in range(c.layers):
        for layer in layers:
            stem = f"pipe.dit.blocks.{index}.self_attn.{layer}"
            made[f"{stem}.lora_A.weight"] = torch.randn(rank, width)
            made[f"{stem}.lora_B.weight"] = torch.randn(width, rank)
    return made


def residual(inner: int, outer: int) -> nn.ModuleDict:
    layers = nn.Sequential(
        Table("gamma", inner, 1, 1, 1),
        nn.SiLU(),
        nn.Conv3d(inner, outer, 3),
        Table("gamma", outer, 1, 1, 1),
        nn.SiLU(),
        nn.Dropout(),
        nn.Conv3d(outer, outer, 3),
    )
    shortcut = {"shortcut": nn.Conv3d(inner, outer, 1)} if inner != outer else {}
    return tree(residual=layers, **shortcut)


def middle(width: int) -> nn.Sequential:
    mixing = tree(
        norm=Table("gamma", width, 1, 1),
        to_qkv=nn.Conv2d(width, 3 * width, 1),
        proj=nn.Conv2d(width, width, 1),
    )
    return nn.Sequential(residual(width, width), mixing, residual(width, width))


def resample(width: int, out: int | None) -> nn.ModuleDict:
    """Steps in space, and in time if `out` tells the channels after it."""
    timed = {"time_conv": nn.Conv3d(width, out, (3, 1, 1))} if out is not None else {}
    return tree(resample=nn.Sequential(nn.Identity(), nn.Conv2d(width, width, 3)), **timed)


def codec(
    widths: tuple[int, ...] = (4, 8, 8),
    decoder_width: int = 6,
    blocks: int = 1,
    in_time: tuple[bool, ...] = (False, True),
    channels: int = 48,
) -> dict[str, Tensor]:
    """Tensors of the official Wan2.2 VAE."""
    downs, ups, last = nn.Sequential(), nn.Sequential(), len(widths) - 1
    wide = [width * decoder_width // widths[0] for width in reversed(widths)]
    for level, width in enumerate(widths):
        before = widths[max(level - 1, 0)]
        parts = [residual(before if index == 0 else width, width) for index in range(blocks)]
        if level != last:
            parts.append(resample(width, width if in_time[level] else None))
        downs.append(tree(downsamples=nn.Sequential(*parts)))
    for level, width in enumerate(wide):
        before = wide[max(level - 1, 0)]
        parts = [residual(before if index == 0 else width, width) for index in range(blocks + 1)]
        if level != last:
            parts.append(resample(width, 2 * width if in_time[::-1][level] else None))
        ups.append(tree(upsamples=nn.Sequential(*parts)))

    def head(width: int, out: int) -> nn.Sequential:
        return nn.Sequential(Table("gamma", width, 1, 1, 1), nn.SiLU(), nn.Conv3d(width, out, 3))

    whole = tree(
        encoder=tree(
            conv1=nn.Conv3d(12, widths[0], 3),
            downsamples=downs,
            middle=middle(widths[-1]),
            head=head(widths[-1], 2 * channels),
        ),
        conv1=nn.Conv3d(2 * channels, 2 * channels, 1),
        conv2=nn.Conv3d(channels, channels, 1),
        decoder=tree(
            conv1=nn.Conv3d(channels, wide[0], 3),
            upsamples=ups,
            middle=middle(wide[0]),
            head=head(wide[-1], 12),
        ),
    )
    return state(whole)


def state(module: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in module.state_dict().items()}


def mixed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same in stored types that differ, as in files that were cast in part."""
    types = (torch.float32, torch.bfloat16, torch.float16)
    return {name: t.to(types[index % 3]) for index, (name, t) in enumerate(tensors.items())}


def write_official(folder: Path, c: GeneratorConfig = TINY) -> Path:
    """An official folder with a VAE; branch and adapters lie beside the weights in files of their own."""
    folder.mkdir(parents=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_file(mixed(backbone(c)), folder / "diffusion_pytorch_model.safetensors")
        torch.save(OrderedDict(mixed(codec())), folder / "Wan2.2_VAE.pth")
        save_file(mixed(branch(c)), folder / "branch.safetensors")
        save_file(mixed(adapters(c)), folder / "adapters.safetensors")
    (folder / "config.json").write_text(f'{{"_class_name": "WanModel", "num_heads": {c.heads}}}')
    return folder


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    """Whether names, types and every bit agree."""
    return left.keys() == right.keys() and all(
        left[name].dtype == right[name].dtype
        and left[name].shape == right[name].shape
        and torch.equal(left[name].contiguous().view(torch.uint8), right[name].contiguous().view(torch.uint8))
        for name in left
    )
