"""Processes forked from a server that has imported the slow modules, on systems that have fork servers."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sysconfig
import tempfile
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker, util
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess

from roadmap.own_packages import ROOT
from runner.machine.signals import FOR_THE_LAUNCHER

SOCKET_FOLDER = 60  # bytes; multiprocessing appends about 32, and the least limit of a system is 104


def fork_server(*preload: str) -> BaseContext:
    """Starts the server with these modules imported, unless it is running; returns the context for its processes.

    The server ignores the signals that a terminal or Slurm sends to all processes at once, and so does each process
    until it sets its own handlers. They are for the launcher. If they ended the server, the launcher would report
    every run as ended.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    make_socket_folder()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["roadmap.own_packages", "runner.machine.ignore_signals", *preload])
    # Separately: starting the tracker unblocks SIGINT and SIGTERM, which the tracker itself ignores.
    with _safe_path(), _blocked(*FOR_THE_LAUNCHER):
        resource_tracker.ensure_running()
    with _safe_path(), _blocked(*FOR_THE_LAUNCHER):
        forkserver.ensure_running()
    return context


def start(process: BaseProcess) -> None:
    """Starts a process. Signals wait meanwhile: an interrupted start leaves it with a part of its arguments."""
    with _blocked(*FOR_THE_LAUNCHER):
        process.start()


def make_socket_folder() -> None:
    """Makes the folder of the sockets between this process and those that it starts, at a path that is short enough.

    The system limits the path of a socket to about a hundred bytes, and TMPDIR may be as long. Raises ValueError if no
    folder with a short path can be written.
    """
    usual = tempfile.gettempdir()
    short = (folder for folder in (usual, "/tmp", "/var/tmp", "/dev/shm") if len(os.fsencode(folder)) <= SOCKET_FOLDER)
    chosen = next((folder for folder in short if os.access(folder, os.W_OK | os.X_OK)), None)
    if chosen is None:
        raise ValueError(f"TMPDIR must be a folder with a path of at most {SOCKET_FOLDER} bytes (got {usual})")
    tempfile.tempdir = chosen
    try:
        util.get_temp_dir()  # kept by multiprocessing, and by the processes that it starts
    finally:
        tempfile.tempdir = usual


@contextlib.contextmanager
def _safe_path() -> Iterator[None]:
    """Python processes that are started meanwhile, and theirs, import nothing from the working directory.

    By default `python -c`, which starts a fork server, imports `select` from a file select.py that lies there. Where
    this package is not the installed one, as in a checkout, they find it by PYTHONPATH.
    """
    paths = [ROOT, *filter(None, [os.environ.get("PYTHONPATH")])]
    changed = {"PYTHONSAFEPATH": "1"}
    changed |= {"PYTHONPATH": os.pathsep.join(paths)} if ROOT != sysconfig.get_path("purelib") else {}
    previous = {name: os.environ.get(name) for name in changed}
    os.environ.update(changed)
    try:
        yield
    finally:
        for name, value in previous.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


@contextlib.contextmanager
def _blocked(*numbers: signal.Signals) -> Iterator[None]:
    """Blocks signals. This process gets them afterwards; a process started meanwhile, once it unblocks them."""
    previous_mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, previous_mask)
