"""The entry point: parse, call the verb, turn errors into one message and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from zoo.cli.arguments import UsageError
from zoo.cli.parser import build_parser
from zoo.cli.show import print_json
from zoo.cli.terminal import take_any_text
from zoo.errors import SpecError, StoreError, ZooError

__all__ = ["DONE", "ERROR", "INCOMPLETE", "main"]

#: Exit codes: as asked; an error; not all there, or something found.
DONE, ERROR, INCOMPLETE = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return the exit code: 0 done, 1 error, 2 incomplete.

    With ``--json`` an error is also one JSON document on standard output, so that what is there can
    always be read: ``{"error": {"type", "message", "problems"}}``.

    Args:
        argv: the arguments; None = those of the process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    json = "--json" in words
    for stream in (sys.stdout, sys.stderr):
        take_any_text(stream)
    try:
        parser = build_parser()
        args = parser.parse_args(words)
        args.root = parser  # for verbs about verbs: completion, submit --then
        if args.plugin:
            _load_plugins(args.plugin)
        code: int = args.verb(args)
        sys.stdout.flush()
    except UsageError as error:
        if json:
            _print_error({"type": "UsageError", "message": error.message, "problems": []})
        return ERROR
    except BrokenPipeError:
        # The reader of a pipe (head, less) has seen enough.
        _drop_output()
        return DONE
    except (ZooError, MemoryError) as error:
        return _report(error, json=json)
    except OSError as error:
        return _report_disk(error, json=json)
    except ImportError as error:
        if "pip install" not in str(error):  # a missing extra says how to get it
            raise
        return _report(error, json=json)
    except KeyboardInterrupt:
        print("zoo: stopped; the same command resumes", file=sys.stderr)
        return INCOMPLETE
    return code


def _load_plugins(paths: Sequence[str]) -> None:
    from zoo.plugins import load_plugins

    load_plugins(paths)


def _report_disk(error: OSError, *, json: bool) -> int:
    """Report a fault of a file or a disk below a verb; a full or read-only disk in our words."""
    from zoo.store.files import disk_message, is_disk_error

    if not is_disk_error(error):
        return _report(error, json=json)
    if error.filename is None:
        _drop_output()
    message = disk_message("write", error.filename or "the output", error)
    return _report(StoreError(message), json=json)


def _drop_output() -> None:
    """Let standard output go nowhere: what could not be printed would be tried again at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_error(facts: dict[str, Any]) -> None:
    """Print the JSON document of an error, unless standard output is what fails."""
    try:
        print_json({"error": facts})
        sys.stdout.flush()
    except OSError:
        _drop_output()


def _report(error: BaseException, *, json: bool) -> int:
    if os.environ.get("ZOO_DEBUG", "") not in ("", "0"):
        raise error
    message = str(error) or type(error).__name__
    print(f"zoo: {message}", file=sys.stderr)
    if json:
        facts: dict[str, Any] = {"type": type(error).__name__, "message": message, "problems": []}
        if isinstance(error, SpecError):
            facts["problems"] = [
                {"field": p.field, "value": p.shown() or None, "message": p.message,
                 "allowed": p.allowed, "fix": p.fix}
                for p in error.problems
            ]  # fmt: skip
        _print_error(facts)
    return ERROR
