"""doctor and completion: what this machine has, and what its shell completes."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Iterator
from typing import Any

from roadmap.cli.options import FAILED, add_out, add_study_options, add_verb, study_options

SHELLS = ("bash", "zsh", "fish")


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "doctor", "show what this machine has, and what would keep a run from starting", "--json")
    add_study_options(parser, ablation=True)
    add_out(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(function=examine)

    parser = add_verb(verbs, "completion", "print a script that completes this command in a shell", "bash")
    parser.add_argument(
        "shell", choices=SHELLS, help='bash or zsh: eval "$(...)" in its startup file; fish: pipe to source'
    )
    parser.set_defaults(function=print_completion)


def examine(options: argparse.Namespace) -> int:
    from roadmap.serialization.plain_data import to_data
    from runner.launch import doctor

    findings = doctor.examine(study_options(options), options.out)
    possible = doctor.can_start(findings)
    if options.json:
        print(json.dumps({"can_start": possible, "findings": to_data(findings)}, indent=2))
        return 0 if possible else FAILED
    width = max(len(finding.subject) for finding in findings)
    for finding in findings:
        mark = "error" if finding.prevents_runs else "note" if finding.advice else "ok"
        print(f"{mark:<5}  {finding.subject:<{width}}  {finding.found}")
        print(f"{'':<{width + 9}}{finding.advice}\n" if finding.advice else "", end="")
    print("\nA run can start." if possible else "\nA run can't start: see the errors above.")
    return 0 if possible else FAILED


def print_completion(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["roadmap"], shell=options.shell))
    return 0


def complete(parser: argparse.ArgumentParser) -> None:
    """Answers a shell that asks for completions, by a script of `completion`, and ends the process."""
    from argcomplete import autocomplete
    from argcomplete.completers import ChoicesCompleter

    from roadmap.options import Selection, StudyOptions

    selection = Selection.of(StudyOptions())
    study, rungs = selection.study, [rung.name for rung in selection.rungs()]
    values: dict[str, Iterable[str]] = {
        "regime": study.regimes,
        "fidelity": study.fidelities,
        "data": study.datasets,
        "steps": ["all", *rungs],
    }
    for action in _actions(parser):
        if action.dest in values:
            action.completer = ChoicesCompleter(dict.fromkeys(values[action.dest], ""))  # type: ignore[attr-defined]
    autocomplete(parser)


def _actions(parser: argparse.ArgumentParser) -> Iterator[argparse.Action]:
    """Those of a parser and of its verbs."""
    for action in parser._actions:
        yield action
        for verb in action.choices.values() if isinstance(action, argparse._SubParsersAction) else ():
            yield from _actions(verb)
