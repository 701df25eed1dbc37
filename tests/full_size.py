"""A full-size model's folder in diffusers' layout, tiny, with random weights, all of the real classes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    PreTrainedTokenizerFast,
    SegformerConfig,
    SegformerForSemanticSegmentation,
    UMT5Config,
    UMT5EncoderModel,
)

from mirage_sim.model.config import SamplerConfig
from mirage_sim.model.generator import Generator
from tests.checkpoints.official import TINY
from tests.models import save_backbone, wan22_autoencoder

LABELS = {0: "wall", 1: "sky", 2: "person;individual", 3: "floor, flooring"}
WORDS = ["<pad>", "</s>", "<unk>", "a", "kitchen", "with", "red", "chairs", "room"]
TOKENS = 6
SMALL: dict[str, Any] = {
    "height": 32,
    "width": 64,
    "segment_length": 2,
    "prompt_tokens": TOKENS,
    "sampler": SamplerConfig(steps=2, shift=5.0, scheduler="unipc", known_fraction=1.0, refine_steps=0),
}
"""Settings with which the tiny model makes small pictures."""


def seeded(make: Any, seed: int = 0) -> Any:
    """Build something with its own random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return make()


def write_processor(folder: Path, size: int, multiple: int = 1, keep: bool = False) -> None:
    values = {
        "size": {"height": size, "width": size},
        "ensure_multiple_of": multiple,
        "keep_aspect_ratio": keep,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(values))


def write_depth_estimator(folder: Path, kind: str = "metric") -> Path:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    encoder = Dinov2Config(
        hidden_size=16,
        num_hidden_layers=4,
        num_attention_heads=2,
        mlp_ratio=2,
        image_size=28,
        out_features=stages,
        reshape_hidden_states=False,
    )
    config = DepthAnythingConfig(
        backbone_config=encoder,
        reassemble_hidden_size=16,
        neck_hidden_sizes=[4, 4, 8, 8],
        fusion_hidden_size=8,
        head_hidden_size=4,
        depth_estimation_type=kind,
        max_depth=20,
    )
    model = seeded(lambda: DepthAnythingForDepthEstimation(config))
    model.head.conv3.bias.data.fill_(0.5)  # else a random one may say 0 everywhere
    model.save_pretrained(folder)
    write_processor(folder, 28, 14, keep=True)
    return folder


def write_segmenter(folder: Path) -> Path:
    sizes = {"depths": [1] * 4, "sr_ratios": [1] * 4, "hidden_sizes": [8] * 4, "num_attention_heads": [1] * 4}
    config = SegformerConfig(**sizes, decoder_hidden_size=8, id2label=LABELS)
    seeded(lambda: SegformerForSemanticSegmentation(config)).save_pretrained(folder)
    write_processor(folder, 32)
    return folder


def write_text(folder: Path, shard: str = "4GB") -> Path:
    """`text_encoder/` and `tokenizer/`."""
    config = UMT5Config(vocab_size=len(WORDS), d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2)
    encoder = seeded(lambda: UMT5EncoderModel(config))
    encoder.save_pretrained(folder / "text_encoder", max_shard_size=shard)
    words = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token=WORDS[2]))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(folder / "tokenizer")
    return folder


def write_full_size(folder: Path) -> Path:
    """Everything that a full-size model's folder may hold."""
    generator = seeded(lambda: Generator(TINY))
    save_backbone(generator, folder / "transformer")
    zeros, ones = [0.0] * TINY.channels, [1.0] * TINY.channels
    seeded(lambda: wan22_autoencoder(4, 4, [True, True], zeros, ones)).save_pretrained(folder / "vae")
    write_depth_estimator(folder / "depth_estimator")
    write_segmenter(folder / "segmenter")
    return write_text(folder)
