"""Command line, `embed`: store a prompt's embedding, for machines without the text encoder."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mirage_sim.arguments import check_device_name, check_folder, make_parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim embed`."""
    parser.add_argument("folder", type=Path, help="holds text_encoder/ and tokenizer/")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="what is to be seen")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="safetensors file to write")
    parser.add_argument("--device", default="cpu", help="where the encoder runs (default: %(default)s)")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Embed and store a prompt.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        File, tokens, width and prompt.

    Raises:
        FileFormatError: If the folder holds no sound encoder.
        InputError: If the file cannot be written.
    """
    for part in ("text_encoder", "tokenizer"):
        check_folder(f"{part} in the folder", args.folder / part)
    check_device_name("--device", args.device)
    make_parent("--out", args.out)
    from mirage_sim.text import TextEncoder, load_embeddings, save_embeddings

    encoder = TextEncoder(args.folder, args.device)
    save_embeddings(args.out, encoder.encode([args.prompt])[0], args.prompt)
    embeddings, prompt = load_embeddings(args.out)
    tokens, width = embeddings.shape
    return {"file": str(args.out), "tokens": tokens, "width": width, "prompt": prompt}
