"""Serves the page of a running study. The page polls for a new version, which is made when runs have changed."""

from __future__ import annotations

import errno
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

HOST = "127.0.0.1"  # this machine only, since there is no authentication
FRESH = 1.0  # seconds for which a look at the folder is valid


@dataclass(frozen=True)
class State:
    """The version of the runs, and a function that makes their page."""

    version: str
    make: Callable[[], str]


class Page:
    """The latest page, shared by many readers."""

    def __init__(self, look: Callable[[], State]) -> None:
        self._look, self._lock = look, threading.Lock()
        self._state = State("", lambda: "")
        self._made: tuple[str, str] = ("", "")
        self._looked_at = -FRESH

    def version(self) -> str:
        with self._lock:
            return self._current().version

    def text(self) -> str:
        with self._lock:
            state = self._current()
            if self._made[0] != state.version:
                self._made = (state.version, state.make())
            return self._made[1]

    def _current(self) -> State:
        if time.monotonic() - self._looked_at >= FRESH:
            self._state, self._looked_at = self._look(), time.monotonic()
        return self._state


def make_server(look: Callable[[], State], port: int) -> ThreadingHTTPServer:
    """A server on this machine, at a port up to 65535; 0 is any free port.

    Raises ValueError for a port that is not available.
    """
    page = Page(look)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/": (page.text, "text/html"), "/version": (page.version, "text/plain")}
            answer = answers.get(self.path.partition("?")[0])
            if not answer:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body = answer[0]().encode(errors="backslashreplace")
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", f"{answer[1]}; charset=utf-8")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    try:
        return _Server((HOST, port), Handler)
    except OSError as error:
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise
        reason = "in use" if error.errno == errno.EADDRINUSE else "reserved"
        raise ValueError(f"--serve {port}: the port is {reason}; choose another, or 0 for any free one") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores readers that have disconnected."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
