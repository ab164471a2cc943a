"""The entry point: parse, call the verb, turn errors into one message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from zoo.cli.parser import build_parser
from zoo.errors import ZooError

__all__ = ["DONE", "ERROR", "INCOMPLETE", "main"]

#: Exit codes: as asked; not all there, or something found; an error.
DONE, ERROR, INCOMPLETE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 error, 2 incomplete.

    Args:
        argv: the arguments; None = those of the process.
    """
    args = build_parser().parse_args(argv)
    try:
        code: int = args.verb(args)
        sys.stdout.flush()
    except ZooError as error:
        return _report(str(error))
    except ImportError as error:
        if "pip install" not in str(error):  # a missing extra says how to get it
            raise
        return _report(str(error))
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except KeyboardInterrupt:
        print("zoo: stopped; the same command again goes on", file=sys.stderr)
        return INCOMPLETE
    return code


def _report(message: str) -> int:
    if os.environ.get("ZOO_DEBUG", "") not in ("", "0"):
        raise  # the error that the caller is handling
    print(f"zoo: {message}", file=sys.stderr)
    return ERROR
