"""``zoo completion``: scripts for shells, made from the parser itself."""

from __future__ import annotations

import argparse
import shlex
from dataclasses import dataclass

from zoo.cli.arguments import RootParser

__all__ = ["EXAMPLES", "SHELLS", "completion", "script"]

SHELLS = ("bash", "zsh", "fish")

EXAMPLES = """\
examples:
  source <(zoo completion bash)                            # this shell; or add it to ~/.bashrc
  zoo completion zsh > "${fpath[1]}/_zoo"
  zoo completion fish > ~/.config/fish/completions/zoo.fish
"""


@dataclass(frozen=True, slots=True)
class _Verb:
    """A verb: its line of help, its options with theirs, and the words that arguments may be."""

    name: str
    doc: str
    options: tuple[tuple[str, str], ...]
    choices: tuple[tuple[str, tuple[str, ...]], ...]
    words: tuple[str, ...]


def completion(args: argparse.Namespace) -> int:
    """Print the script of a shell."""
    print(script(args.shell, args.root), end="")
    return 0


def script(shell: str, root: RootParser) -> str:
    """Return the script with which ``bash``, ``zsh`` or ``fish`` completes the command."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[shell](_verbs(root))


def _verbs(root: RootParser) -> list[_Verb]:
    short = {action.dest: action.help or "" for action in root.verbs._choices_actions}
    found = []
    for name, parser in root.verbs.choices.items():
        options, choices = [], []
        words: tuple[str, ...] = ()
        for action in parser._actions:
            values = tuple(str(value) for value in action.choices or ())
            if not action.option_strings:
                words += values
            for option in action.option_strings:
                options.append((option, (action.help or "").replace("%%", "%")))
                if values:
                    choices.append((option, values))
        found.append(_Verb(name, short[name], tuple(options), tuple(choices), words))
    return found


def _bash(verbs: list[_Verb]) -> str:
    cases = []
    for verb in verbs:
        words = " ".join([*(option for option, _ in verb.options), *verb.words])
        cases.append(f"    {verb.name}) words={shlex.quote(words)} ;;")
    values = [
        f"    {verb.name}:{option}) words={shlex.quote(' '.join(allowed))} ;;"
        for verb in verbs
        for option, allowed in verb.choices
    ]
    first = shlex.quote(" ".join([*(verb.name for verb in verbs), "--help", "--version"]))
    return "\n".join(
        [
            "# completion of the command zoo for bash; made by `zoo completion bash`",
            "_zoo() {",
            '  local word="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
            '  local verb="${COMP_WORDS[1]}" words=""',
            '  if [ "$COMP_CWORD" -eq 1 ]; then',
            f'    COMPREPLY=( $(compgen -W {first} -- "$word") )',
            "    return",
            "  fi",
            '  case "$verb" in',
            *cases,
            "  esac",
            '  case "$verb:$before" in',
            *values,
            "  esac",
            '  COMPREPLY=( $(compgen -W "$words" -- "$word") )',
            '  [ "${word#-}" = "$word" ] && COMPREPLY+=( $(compgen -f -- "$word") )',
            "}",
            "complete -o filenames -F _zoo zoo",
            "",
        ]
    )


def _zsh(verbs: list[_Verb]) -> str:
    def described(name: str, doc: str) -> str:
        return shlex.quote(f"{name.replace(':', chr(92) + ':')}:{_line(doc)}")

    lines = [
        "#compdef zoo",
        "# completion of the command zoo for zsh; made by `zoo completion zsh`",
        "_zoo() {",
        "  local -a verbs options values",
        "  verbs=(" + " ".join(described(verb.name, verb.doc) for verb in verbs) + ")",
        "  if (( CURRENT == 2 )); then _describe verb verbs; return; fi",
        '  case "$words[2]:$words[CURRENT-1]" in',
    ]
    for verb in verbs:
        for option, allowed in verb.choices:
            listed = " ".join(shlex.quote(value) for value in allowed)
            lines.append(f"    {verb.name}:{option}) compadd -- {listed}; return ;;")
    lines += ["  esac", '  case "$words[2]" in']
    for verb in verbs:
        listed = " ".join(described(option, doc) for option, doc in verb.options)
        words = " ".join(shlex.quote(word) for word in verb.words)
        lines.append(f"    {verb.name}) options=({listed}); values=({words}) ;;")
    return "\n".join(
        [
            *lines,
            "  esac",
            "  if [[ $words[CURRENT] == -* ]]; then _describe option options; return; fi",
            "  (( $#values )) && compadd -a values",
            "  _files",
            "}",
            'if [[ "$funcstack[1]" == "_zoo" ]]; then _zoo "$@"; else compdef _zoo zoo; fi',
            "",
        ]
    )


def _fish(verbs: list[_Verb]) -> str:
    lines = ["# completion of the command zoo for fish; made by `zoo completion fish`"]
    lines += [
        f"complete -c zoo -n __fish_use_subcommand -f -a {verb.name} -d {_fish_text(verb.doc)}"
        for verb in verbs
    ]
    for verb in verbs:
        seen = f"complete -c zoo -n '__fish_seen_subcommand_from {verb.name}'"
        choices = dict(verb.choices)
        for option, doc in verb.options:
            flag = f"-l {option[2:]}" if option.startswith("--") else f"-s {option[1:]}"
            values = f" -x -a {_fish_text(' '.join(choices[option]))}" if option in choices else ""
            lines.append(f"{seen} {flag}{values} -d {_fish_text(_line(doc))}")
        if verb.words:
            lines.append(f"{seen} -f -a {_fish_text(' '.join(verb.words))}")
    return "\n".join([*lines, ""])


def _line(doc: str) -> str:
    return " ".join(doc.split())


def _fish_text(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
