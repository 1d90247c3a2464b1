"""``immich-bento completion``: a script that makes bash, zsh or fish complete the commands and their options.

The words are those of the commands' own parsers at the time when the script is printed.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence

_BASH = """\
_immich_bento() {{
    local words
    case "${{COMP_WORDS[*]:1:COMP_CWORD-1}}" in
{cases}
    esac
    COMPREPLY=($(compgen -o default -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _immich_bento immich-bento
"""
_ZSH = "autoload -U +X bashcompinit && bashcompinit\n" + _BASH


def main(arguments: Sequence[str], *, program: str, names: Sequence[str]) -> int:
    """Print the script for the shell that the first argument names; return 0. ``names``: of all commands."""
    parser = argparse.ArgumentParser(
        prog=program,
        description='Print what makes a shell complete these commands. In bash: eval "$(immich-bento completion bash)"',
    )
    parser.add_argument("shell", choices=["bash", "zsh", "fish"])
    shell = parser.parse_args(arguments).shell
    print(script(shell, names), end="")  # noqa: T201
    return 0


def script(shell: str, names: Sequence[str]) -> str:
    """Return the script for ``shell``: ``bash``, ``zsh`` or ``fish``."""
    words = completions(names)
    if shell == "fish":
        return "".join(_fish_lines(words))
    lines = [f'        "{before}"*) words="{" ".join(found)}" ;;' for before, found in _longest_first(words)]
    return (_BASH if shell == "bash" else _ZSH).format(cases="\n".join(lines))


def completions(names: Sequence[str]) -> Mapping[str, Sequence[str]]:
    """Return what may follow: the words typed so far, without the program's name, to the next ones."""
    from immich_bento.doctor.command import parser as doctor_parser
    from models.command import parser as models_parser
    from search.command.main import parser as search_parser

    found: dict[str, Sequence[str]] = {"": [*names, "--version", "--help"]}
    found["completion"] = ["bash", "zsh", "fish"]
    for name, make in (("models", models_parser), ("search", search_parser), ("doctor", doctor_parser)):
        found |= _of_parser(name, make(f"immich-bento {name}"))
    return found


def _of_parser(typed: str, parser: argparse.ArgumentParser) -> dict[str, Sequence[str]]:
    found: dict[str, Sequence[str]] = {typed: sorted(_options(parser))}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found[typed] = [*action.choices, *found[typed]]
            for name, command in action.choices.items():
                found |= _of_parser(f"{typed} {name}", command)
    return found


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in parser._actions:
        yield from (option for option in action.option_strings if option.startswith("--"))


def _longest_first(words: Mapping[str, Sequence[str]]) -> Sequence[tuple[str, Sequence[str]]]:
    return sorted(words.items(), key=lambda item: -len(item[0]))


def _fish_lines(words: Mapping[str, Sequence[str]]) -> Iterator[str]:
    for before, found in words.items():
        seen = [f"__fish_seen_subcommand_from {word}" for word in before.split()] or ["__fish_use_subcommand"]
        yield f"complete -c immich-bento -n '{'; and '.join(seen)}' -a '{' '.join(found)}'\n"
