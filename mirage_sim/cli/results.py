"""Command line: `mirage-sim results` writes the tables of a document from the results of evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `mirage-sim results`."""
    parser.add_argument("document", type=Path, help="Markdown file with marked tables, such as README.md")
    parser.add_argument(
        "--out", type=Path, default=Path("out"), help="where the evaluations wrote (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Write the tables.

    Args:
        args: What `add_arguments` parsed.

    Returns:
        The document and the tables written.

    Raises:
        FileFormatError: If the document is missing, a mark is unknown, or results are missing.
    """
    from mirage_sim.errors import FileFormatError
    from mirage_sim.evaluation.results import write_results

    if not args.document.is_file():
        raise FileFormatError(f"document must be a Markdown file, got {args.document}")
    return {"document": str(args.document), "tables": write_results(args.document, args.out)}
