"""The command `roadmap`: it parses options and prints results.

The module of a verb is imported when the verb is used, and the modules that the verb needs when it runs. May import
`roadmap`, and inside functions `runner` and `analysis`.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roadmap.cli.options import BAD_USAGE, INTERRUPTED
from roadmap.own_packages import Conflict
from roadmap.serialization.plain_data import user_path
from roadmap.text import suggest

# The modules of roadmap.cli and their verbs, in the order of --help. `add_verbs` of a module adds its verbs.
VERBS = {
    "designs": ("list", "show", "diff", "cost"),
    "spaces": ("sample", "space"),
    "runs": ("run",),
    "transfer": ("transfer",),
    "jobs": ("status", "logs", "cancel", "retry"),
    "figures": ("figure",),
    "tables": ("collect", "table"),
    "reports": ("report",),
    "disagreement": ("disagree",),
    "power_attribution_proxy": ("power", "attribution", "proxy"),
    "bench": ("bench",),
    "data": ("data",),
    "export": ("export",),
    "evaluation": ("evaluate",),
    "machine": ("doctor", "completion"),
}


class Parser(argparse.ArgumentParser):
    """Reports bad usage in one sentence, without the usage text. Options of `type=Path` take ~ as a home folder."""

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self.register("type", Path, user_path)

    def error(self, message: str) -> None:  # type: ignore[override]
        message = re.sub(r"^argument (\S+): must ", r"\1 must ", message)  # from `roadmap.cli.options.number`
        self.exit(BAD_USAGE, f"{self.prog}: {message} ({self.prog} --help)\n")


class ShowVersion(argparse.Action):
    """Prints the version, which takes an import to know, and ends the command."""

    def __call__(self, parser: argparse.ArgumentParser, *parsed: Any) -> None:
        from runner.machine.snapshot import version

        print(f"roadmap {version() or 'of a folder that is not installed'}")
        parser.exit()


class Options(argparse.Namespace):
    """The parsed options, read-only: attributes can't be set, and lists are tuples."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(parsed).items()}
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name} can't be changed: parsed options are read-only")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name} can't be changed: parsed options are read-only")


def make_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """A parser for all verbs, or only for the verbs of one module if `verb` is known."""
    parser = Parser(prog="roadmap", description="Re-run, analyze and draw the steps from a ResNet to a ConvNeXt.")
    parser.add_argument("--version", action=ShowVersion, nargs=0, help="print the version")
    modules = [module for module, names in VERBS.items() if verb in names] or list(VERBS)
    if verb and not verb.startswith("-") and len(modules) > 1:
        parser.error(f"unknown verb {verb!r}; {suggest([name for names in VERBS.values() for name in names], verb)}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in modules:
        importlib.import_module(f"roadmap.cli.{module}").add_verbs(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit status: 0 success, 1 failure, 2 bad usage, 130 stopped by Ctrl-C."""
    _prepare_output()
    if "_ARGCOMPLETE" in os.environ:
        from roadmap.cli.machine import complete

        complete(make_parser())
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = Options(make_parser(next(iter(arguments), None)).parse_args(arguments))
    except SystemExit as stop:  # after --help or a message about bad usage
        return int(stop.code or 0)
    try:
        from runner.machine.signals import exit_on_termination

        exit_on_termination()
        signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # only runs in training handle it
        status: int = options.function(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `roadmap list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED if options.verb == "run" else 0
    except (ValueError, OSError, Conflict) as error:
        message = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            message = f"{error.filename}: {error.strerror}"
        print(f"roadmap {options.verb}: {' '.join(message.split())}", file=sys.stderr)
        return BAD_USAGE


def _prepare_output() -> None:
    """Makes printing safe: characters that the terminal lacks are replaced, and a closed output discards all text."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # for the rest of the process
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
