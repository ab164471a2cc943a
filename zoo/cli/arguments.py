"""Parsing: options anywhere, verbs in groups, and the nearest name for what is not known."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

from zoo.errors import did_you_mean

__all__ = ["RootParser", "UsageError", "VerbParser"]

#: Verbs and words that people try -> what to type instead.
INSTEAD = {
    "plot": "report STORE --plot FILE",
    "draw": "report STORE --plot FILE",
    "sweep": "plan --check SWEEP ...",
    "check": "plan --check SWEEP ...",
    "validate": "plan --check SWEEP ...",
    "data": "list data",
    "datasets": "list data",
    "metrics": "list metric",
    "extend": "run SWEEP --out STORE, or submit SWEEP --out STORE on a cluster",
    "resume": "run STORE",
    "continue": "run STORE",
    "train": "run SWEEP --out STORE",
    "fit": "run SWEEP --out STORE",
    "new": "init FILE",
    "create": "init FILE",
    "select": "query STORE PREDICATE",
    "show": "info STORE",
    "describe": "info STORE",
    "help": "--help",
}


class UsageError(SystemExit):
    """A command line that cannot be read; usage and message are printed already.

    Args:
        message: what is wrong.
    """

    def __init__(self, message: str) -> None:
        super().__init__(1)
        self.message = message


class _Parser(argparse.ArgumentParser):
    """A parser whose errors end with exit code 1, as every other error does: 2 is "incomplete"."""

    def error(self, message: str) -> NoReturn:
        """Print the usage and the message.

        Raises:
            UsageError: always.
        """
        self.print_usage(sys.stderr)
        print(f"zoo: {message}", file=sys.stderr)
        raise UsageError(message)


class VerbParser(_Parser):
    """The parser of one verb: options may stand before, between and behind its arguments."""

    _inside = False

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """Parse options and arguments in any order; what is not known comes back."""
        if self._inside:  # parse_known_intermixed_args calls this for each kind
            return super().parse_known_args(args, namespace)
        self._inside = True
        try:
            return self.parse_known_intermixed_args(self._joined(args or ()), namespace)
        finally:
            self._inside = False

    def _joined(self, words: Sequence[str]) -> list[str]:
        """Return the words with ``--sort -lr`` as ``--sort=-lr``: the value is not an option."""
        known = self._option_string_actions
        out: list[str] = []
        for word in words:
            before = known.get(out[-1]) if out else None
            takes = before is not None and before.nargs is None and out[-1].startswith("--")
            negative = word.startswith("-") and word != "-" and word.partition("=")[0] not in known
            if takes and negative and "--" not in out:
                out[-1] = f"{out[-1]}={word}"
            else:
                out.append(word)
        return out

    def refuse(self, rest: Sequence[str]) -> NoReturn:
        """End with an error about the words that the verb does not know.

        Raises:
            UsageError: always.
        """
        options = [word.partition("=")[0] for word in rest if word.startswith("-")]
        if not options:
            self.error(f"one argument too many: {rest[0]!r}; quote what has spaces in it")
        close = did_you_mean(options[0], self._option_string_actions)
        help_of = f"`{self.prog} --help` lists the options"
        self.error("; ".join(filter(None, [f"unknown option {options[0]}", close, help_of])))


class RootParser(_Parser):
    """The parser of the command: its help shows the verbs in groups.

    Args:
        groups: title -> names of verbs.
    """

    def __init__(self, *, groups: Mapping[str, Sequence[str]], **options: Any) -> None:
        super().__init__(**options)
        self.groups = groups
        self.verbs = self.add_subparsers(metavar="VERB", required=True, parser_class=VerbParser)

    def parse_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Parse a command line.

        Raises:
            UsageError: it cannot be read; the message names the nearest verb or option.
        """
        words = list(sys.argv[1:] if args is None else args)
        at = next((i for i, word in enumerate(words) if not word.startswith("-")), len(words))
        if at < len(words):
            self._check_verb(words[at])
            if not {"-h", "--help", "--version"} & set(words[:at]):
                words = [words[at], *words[:at], *words[at + 1 :]]  # zoo --json VERB
        found, rest = self.parse_known_args(words, namespace)
        if rest:
            self.verbs.choices[words[0]].refuse(rest)
        return found

    def _check_verb(self, name: str) -> None:
        if name in self.verbs.choices:
            return
        if name in INSTEAD:
            self.error(f"unknown verb {name!r}; did you mean `zoo {INSTEAD[name]}`?")
        close = did_you_mean(name, self.verbs.choices)
        self.error("; ".join(filter(None, [f"unknown verb {name!r}", close, "see `zoo --help`"])))

    def format_help(self) -> str:
        """Return the help, the verbs in groups."""
        short = {action.dest: action.help for action in self.verbs._choices_actions}
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, [*self._get_optional_actions(), self.verbs], [])
        formatter.add_text(self.description)
        grouped = {name for names in self.groups.values() for name in names}
        others = [name for name in short if name not in grouped]
        for title, names in {**self.groups, **({"others": others} if others else {})}.items():
            formatter.start_section(title)
            formatter.add_arguments(
                argparse.Action([], name, nargs=0, metavar=name, help=short[name])
                for name in names
                if name in short
            )
            formatter.end_section()
        formatter.start_section("options")
        formatter.add_arguments(self._get_optional_actions())
        formatter.end_section()
        formatter.add_text(self.epilog)
        return formatter.format_help()
