"""Command line: `mirage-sim results` writes the tables of a document from the results of evaluations."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from mirage_sim.arguments import check_file, check_folder


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
    check_file("document", args.document)
    check_folder("--out", args.out)
    from mirage_sim.evaluation.results import write_results

    return {"document": str(args.document), "tables": write_results(args.document, args.out)}
