"""The command `roadmap`, in this process or in a new one.

A new process takes seconds to import what it needs. It is for tests of signals, kills, launchers, the environment, and
of what is imported.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadmap import plugins
from roadmap.cli import main
from roadmap.data.datasets import DATASETS
from roadmap.network.library_models import MODELS
from roadmap.network.mixers import MIXERS
from roadmap.plugins import Registry
from roadmap.recipe import OPTIMIZERS
from roadmap.record.metrics import METRICS
from roadmap.spaces.parameters import PARAMETERS
from roadmap.spaces.registry import SPACES
from roadmap.steps import STEPS
from roadmap.tasks.registry import TASKS
from tests.helpers.training import warm_fork_server

PYTHON = (sys.executable,)
STARTED: list[subprocess.Popen[str]] = []
# A run of little work: a narrow network, and a recipe whose processes need not import timm for it.
LIGHT = ["--set", "design.width=8", "--set", "recipe.mix_probability=0", "--set", "recipe.random_erasing=0"]
TIMEOUT = 900  # seconds: for a command that hangs, on a machine that is busy


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    status: int
    out: str
    err: str

    def __bool__(self) -> bool:
        return self.status == 0


@contextlib.contextmanager
def untouched() -> Iterator[None]:
    """Restores what the command changes in its process: plug-ins, the modules beside them, signal handlers."""
    tables: tuple[Registry[Any], ...] = (
        STEPS,
        MIXERS,
        MODELS,
        OPTIMIZERS,
        DATASETS,
        METRICS,
        TASKS,
        SPACES,
        PARAMETERS,
    )
    before, loaded = [dict(table) for table in tables], dict(plugins.LOADED)
    path, modules = list(sys.path), set(sys.modules)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)}
    try:
        yield
    finally:
        for table, old in zip(tables, before, strict=True):
            table.clear()
            table.update(old)
        sys.path[:] = path
        folders = [file.parent for file in plugins.LOADED if file not in loaded]
        for name in set(sys.modules) - modules:
            file = getattr(sys.modules[name], "__file__", None)
            if file and any(Path(file).is_relative_to(folder) for folder in folders):
                del sys.modules[name]
        plugins.LOADED.clear()
        plugins.LOADED.update(loaded)
        for number, handler in handlers.items():
            signal.signal(number, handler)


def shadow(folder: Path, *names: str) -> None:
    """Writes files and packages ("runner/") with the names of modules, whose import ends the process."""
    for name in names:
        path = folder / name / "__init__.py" if name.endswith("/") else folder / f"{name}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'raise SystemExit("{path} was imported")\n', encoding="utf-8")


def run_here(*arguments: object, cwd: Path | None = None) -> Done:
    """The command in this process; its runs are trained in processes of the tests' warm fork server."""
    warm_fork_server()
    out, err = io.StringIO(), io.StringIO()
    with contextlib.ExitStack() as stack:
        stack.enter_context(untouched())
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        if cwd is not None:
            stack.enter_context(contextlib.chdir(cwd))
        try:
            status = main([str(argument) for argument in arguments])
        except SystemExit as left:  # what the parser refuses
            status = int(left.code or 0)
    return Done(status, out.getvalue(), err.getvalue())


def command_line(*arguments: object, launcher: Sequence[str] = PYTHON) -> list[str]:
    return [*launcher, "-m", "roadmap", *map(str, arguments)]


def run_apart(
    *arguments: object, cwd: Path | None = None, env: Mapping[str, str] = {}, launcher: Sequence[str] = PYTHON
) -> Done:
    """Runs the command in a new process. `env` is added to the environment."""
    done = subprocess.run(
        command_line(*arguments, launcher=launcher),
        cwd=cwd,
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def start_apart(*arguments: object, cwd: Path | None = None, **options: Any) -> subprocess.Popen[str]:
    """Starts the command in a new process, its output in pipes unless `options` of Popen say otherwise.

    It is killed with this process, and at the end of the test: a study must not outlive either.
    """
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = ["setpriv", "--pdeathsig", "KILL", *command_line(*arguments)]
    STARTED.append(subprocess.Popen(command, cwd=cwd, text=True, **pipes | options))
    return STARTED[-1]


def kill_started() -> None:
    """Kills what `start_apart` started and no test has waited for. The runs of a launcher stop when it is gone."""
    while STARTED:
        process = STARTED.pop()
        if process.poll() is None:
            process.kill()
            process.communicate()
