"""The words of ``vdm fit`` and its like that are no keys of a recipe, read before any heavy import.

So that ``--help`` and the name of a recipe that is not there are answered at once.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence
from pathlib import Path

from vdm.cli_parsing import Parser, WrongWords


def main(argv: Sequence[str]) -> int:
    """Run one command line, as :func:`vdm.training.cli.main`.

    Args:
        argv: Sub-command first.

    Returns:
        The exit status.

    Raises:
        WrongWords: If a word, key or value cannot be read.
    """
    if read_words(argv) is None:
        return 0
    return int(importlib.import_module("vdm.training.cli").main(argv))


def read_words(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]] | None:
    """Recipes and folder, and the keys that are left; None if only help was asked for.

    Args:
        argv: Sub-command first, e.g. ``["fit", "--config", "configs/smoke.yaml"]``.

    Raises:
        WrongWords: If there is no recipe, or one that does not exist.
    """
    command, *words = argv
    parser = Parser(prog=f"vdm {command}", add_help=False, usage="%(prog)s --config C [...]")
    parser.add_argument("--config", "-c", action="append", help="recipe first, then overlays")
    parser.add_argument("--output", metavar="DIR", help="default outputs/<recipe>")
    help_ = "go on from the newest whole checkpoint in DIR"
    if command != "fit":
        help_ = "changes nothing: the newest whole checkpoint in DIR is taken anyway"
    parser.add_argument("--resume", action="store_true", help=help_)
    if {"-h", "--help"} & set(words):
        parser.print_help()
        print("\nEvery other flag is a key of the recipe: --trainer.max_steps 100, --model.x y")
        return None
    ours, keys = parser.parse_known_args(words)
    if not ours.config:
        raise WrongWords("got no recipe, expected --config FILE, e.g. --config configs/smoke.yaml")
    for path in ours.config:
        if not Path(path).is_file():
            raise WrongWords(f"got --config {path}, expected a file that exists")
    return ours, keys
