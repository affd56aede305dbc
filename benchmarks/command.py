"""What the command lines of the benchmark share."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from unlearning.errors import StudyError

RESULTS = Path(__file__).parent / "results"


def options(module: str, description: str | None, *, repeats: int) -> argparse.ArgumentParser:
    """A parser that knows --repeats and --out."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{module}", description=description)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--out", type=Path, default=RESULTS)
    return parser


def call(run: Callable[..., int], parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    """`run(out, **options)`, which returns the exit status; 1 when it raises what a user can mend."""
    chosen = vars(parser.parse_args(arguments))
    try:
        return run(chosen.pop("out"), **chosen)
    except StudyError as error:
        print(error, file=sys.stderr)
        return 1
