"""Published: a checkpoint as official files, with memory branch and adapters in their published files.

Source: layout of the published Wan2.2-TI2V-5B folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from mirage_sim.checkpoints.checkpoint import OFFICIAL_CODECS, Checkpoint
from mirage_sim.checkpoints.codec_names import codec_names
from mirage_sim.checkpoints.files import INDEX_ENDING, SHARD_BYTES, apart, write_shards
from mirage_sim.checkpoints.names import ADAPTERS, BACKBONE, BRANCH, Names, publish
from mirage_sim.checkpoints.shapes import FIXED
from mirage_sim.files import whole_file, whole_folder
from mirage_sim.model.config import PROMPT

BACKBONE_STEM = "diffusion_pytorch_model"
BRANCH_STEM = "memory_branch"
ADAPTERS_STEM = "lora"


def save_official(checkpoint: Checkpoint, folder: Path, limit: int = SHARD_BYTES) -> None:
    """Write official files; the folder appears whole or not at all.

    Args:
        checkpoint: What to write, in its types.
        folder: New or empty.
        limit: Bytes of a file of the backbone.

    Raises:
        InputError: If the folder is taken, or the codec is not of Wan2.2's kind.
        FileWriteError: If it cannot be written.
    """
    config = checkpoint.config
    with whole_folder(folder) as temporary:
        backbone = publish(checkpoint.backbone, BACKBONE)
        written = write_shards(backbone, temporary, BACKBONE_STEM, limit)
        if len(written) > 1:
            index = {
                "metadata": {"total_size": sum(tensor.nbytes for tensor in backbone.values())},
                "weight_map": {name: file for file, names in written.items() for name in names},
            }
            _write_json(temporary / f"{BACKBONE_STEM}{INDEX_ENDING}", index)
        told = {
            "_class_name": "WanModel",
            "model_type": "ti2v",
            "dim": config.heads * config.head_dim,
            "num_heads": config.heads,
            "num_layers": config.layers,
            "ffn_dim": config.ffn_dim,
            "in_dim": config.channels,
            "out_dim": config.channels,
            "freq_dim": FIXED["freq_dim"],
            "eps": FIXED["eps"],
            "text_len": PROMPT,
        }
        _write_json(temporary / "config.json", told)
        for tensors, names, stem in (
            (checkpoint.branch, BRANCH, BRANCH_STEM),
            (checkpoint.adapters, ADAPTERS, ADAPTERS_STEM),
        ):
            if tensors:
                published = publish(tensors, names)
                write_shards(published, temporary, stem, sum(tensor.nbytes for tensor in published.values()))
        if checkpoint.codec:
            depth = len(checkpoint.codec_config["dim_mult"]), checkpoint.codec_config["num_res_blocks"]
            published = publish(checkpoint.codec, codec_names(*depth))
            # Where official code looks for it, and in the kind of file that it reads.
            torch.save(apart(published), temporary / OFFICIAL_CODECS[0])


def save_part(tensors: Mapping[str, Tensor], names: Names, path: Path) -> None:
    """Write one part of a checkpoint, a memory branch or adapters, whole or not at all.

    Args:
        tensors: By our names.
        names: Of the part.
        path: The file, safetensors.

    Raises:
        InputError: If tensors have no published name.
        FileWriteError: If it cannot be written.
    """
    with whole_file(path) as temporary:
        save_file(apart(publish(tensors, names)), temporary, {"format": "pt"})


def _write_json(path: Path, values: dict[str, object]) -> None:
    path.write_text(json.dumps(values, indent=2) + "\n")
