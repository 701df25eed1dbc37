"""Command line, `encode`: the clips of a source as latents, for training at full size."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mirage_sim.arguments import (
    check_at_least,
    check_device_name,
    check_folder,
    check_positive,
    check_world_model,
    make_parent,
    path_exists,
)
from mirage_sim.errors import FileFormatError, InputError

if TYPE_CHECKING:
    from mirage_sim.model.codec import Codec
    from mirage_sim.sources import ClipSource

KINDS = ("vipe", "realestate", "recordings")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim encode`."""
    parser.add_argument(
        "source", type=Path, help="folder of videos, camera files or recordings, or one recording"
    )
    parser.add_argument("--kind", choices=KINDS, required=True, help="what is in it")
    parser.add_argument(
        "--codec",
        required=True,
        metavar="MODEL",
        help='world model ("embedded" or a folder), or full-size weights',
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FILE", help="HDF5; one begun before goes on"
    )
    parser.add_argument("--height", type=int, default=704, help="of the pictures (default: %(default)s)")
    parser.add_argument("--width", type=int, default=1280, help="of the pictures (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=81, help="of a clip (default: %(default)s)")
    parser.add_argument(
        "--step", type=int, default=1, help="frames from one of a clip to the next (default: %(default)s)"
    )
    parser.add_argument(
        "--every", type=int, help="frames between the starts of clips (default: a clip's length)"
    )
    parser.add_argument(
        "--dtype", choices=("float16", "bfloat16"), default="float16", help="of stored latents"
    )
    parser.add_argument("--device", default="cpu", help="where the codec runs (default: %(default)s)")
    parser.add_argument(
        "--part",
        type=int,
        nargs=2,
        default=(0, 1),
        metavar=("INDEX", "COUNT"),
        help="only one of COUNT shares of the videos, counted from 0, each into a file of its own",
    )
    parser.add_argument("--skip-damaged", action="store_true", help="pass over damaged videos and tell them")
    parser.add_argument(
        "--frames-folder", type=Path, help="frames of realestate (default: beside the cameras)"
    )
    parser.add_argument("--scale", type=float, default=1.0, help="metres of a unit of realestate's cameras")
    parser.add_argument("--fps", type=float, default=10.0, help="frames a second of recordings")


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Encode what the file does not hold yet.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        The file, its size, the clips in it, how many are new, and which were damaged.

    Raises:
        FileFormatError: If a file is missing or damaged, or latents are of another codec.
        InputError: If sizes do not fit the codec, or the file was begun with other settings.
        MissingExtraError: If a library is missing that the source's files need.
    """
    _check(args)
    from mirage_sim.sources import EncodeConfig, encode_source

    config = EncodeConfig(
        height=args.height,
        width=args.width,
        frames=args.frames,
        step=args.step,
        every=args.every,
        dtype=args.dtype,
        part=tuple(args.part),
        skip_damaged=args.skip_damaged,
    )
    source = _open_source(args)
    codec = _load_codec(args.codec, args.device)
    report = encode_source(source, f"{args.kind}:{args.source.resolve().name}", codec, config, args.out)
    return {
        "file": str(args.out),
        "bytes": args.out.stat().st_size,
        "clips": report.clips,
        "encoded": report.encoded,
        "skipped": report.skipped,
    }


def _check(args: argparse.Namespace) -> None:
    """Check everything that needs no torch."""
    if not path_exists(args.source):
        raise FileFormatError(
            f"source must be a folder or a recording, got {args.source}, which does not exist"
        )
    check_world_model("--codec", args.codec)
    check_device_name("--device", args.device)
    for name in ("height", "width", "frames", "step"):
        check_at_least(f"--{name}", getattr(args, name), 1)
    if args.every is not None:
        check_at_least("--every", args.every, 1)
    index, count = args.part
    if not 0 <= index < count:
        raise InputError(f"--part must be INDEX COUNT with 0 <= INDEX < COUNT, got {index} {count}")
    for name in ("scale", "fps"):
        check_positive(f"--{name}", getattr(args, name))
    if args.frames_folder is not None:
        check_folder("--frames-folder", args.frames_folder)
    make_parent("--out", args.out)


def _open_source(args: argparse.Namespace) -> ClipSource:
    from mirage_sim.sources import RealEstateSource, RecordingsSource, VipeSource

    if args.kind == "vipe":
        return VipeSource(args.source)
    if args.kind == "realestate":
        return RealEstateSource(args.source, args.frames_folder, args.scale)
    return RecordingsSource(args.source, args.fps)


def _load_codec(name: str, device: str) -> Codec:
    """The codec of full-size weights, of which nothing else is loaded, or of another world model."""
    from mirage_sim import load_world_model
    from mirage_sim.checkpoints import build_codec, open_checkpoint
    from mirage_sim.checkpoints.folder import holds_checkpoint
    from mirage_sim.model.config import CONFIG_FILE

    folder = Path(name)
    if name != "embedded" and not (folder / CONFIG_FILE).is_file() and holds_checkpoint(folder):
        return build_codec(open_checkpoint(folder), device)
    codec: Codec = load_world_model(name, device).codec
    return codec
