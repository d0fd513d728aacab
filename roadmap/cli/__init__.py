"""The command `roadmap`: parsing and printing. A verb's module is imported when it is asked for, and what the verb
needs when it runs.
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

from roadmap.cli.options import BAD_USAGE, INTERRUPTED
from roadmap.serialization import suggest

# The modules below roadmap.cli and their verbs, in the order of --help. Each adds them to the parser by `add_verbs`.
VERBS = {
    "designs": ("list", "show", "diff", "cost"),
    "runs": ("run",),
    "jobs": ("status", "logs", "cancel", "retry"),
    "figures": ("figure",),
    "tables": ("collect", "table"),
    "reports": ("report",),
    "power_attribution_proxy": ("power", "attribution", "proxy"),
    "bench": ("bench",),
    "data": ("data",),
    "export": ("export",),
    "evaluation": ("evaluate",),
}


class Parser(argparse.ArgumentParser):
    """Bad usage gets one sentence, not the whole usage."""

    def error(self, message: str) -> None:  # type: ignore[override]
        message = re.sub(r"^argument (\S+): must ", r"\1 must ", message)  # of `roadmap.cli.options.number`
        self.exit(BAD_USAGE, f"{self.prog}: {message} ({self.prog} --help)\n")


class Options(argparse.Namespace):
    """The options as they were parsed. Nothing changes them: attributes can't be set, and lists are tuples."""

    def __init__(self, parsed: argparse.Namespace) -> None:
        values = {name: tuple(value) if isinstance(value, list) else value for name, value in vars(parsed).items()}
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"options are not changed once they are parsed: {name}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"options are not changed once they are parsed: {name}")


def make_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """For all verbs; where the verb is known, for those of its module."""
    parser = Parser(prog="roadmap", description="From a ResNet to a ConvNeXt, rung by rung: re-run, take apart, draw.")
    modules = [module for module, names in VERBS.items() if verb in names] or list(VERBS)
    if verb and not verb.startswith("-") and len(modules) > 1:
        parser.error(f"unknown verb {verb!r}; {suggest([name for names in VERBS.values() for name in names], verb)}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for module in modules:
        importlib.import_module(f"roadmap.cli.{module}").add_verbs(verbs)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit status: 0 done, 1 something failed, 2 bad usage, 130 stopped by Ctrl-C."""
    _prepare_output()
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        options = Options(make_parser(next(iter(arguments), None)).parse_args(arguments))
    except SystemExit as stop:  # after --help, or a sentence on bad usage
        return int(stop.code or 0)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that what runs is stopped in order
    signal.signal(signal.SIGUSR2, signal.SIG_IGN)  # asks runs in training for their state, and nothing of others
    try:
        status: int = options.function(options)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # `roadmap list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return INTERRUPTED if options.verb == "run" else 0
    except (ValueError, OSError) as error:
        told = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            told = f"{error.filename}: {error.strerror}"
        print(f"roadmap {options.verb}: {' '.join(told.split())}", file=sys.stderr)
        return BAD_USAGE


def _prepare_output() -> None:
    """A terminal that lacks a character gets another, and a closed output swallows what is printed."""
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # for the rest of the process
    elif isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")
