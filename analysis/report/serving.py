"""The page while a study runs: made anew when something has changed, and asked for again by the page itself."""

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

HOST = "127.0.0.1"  # of this machine alone: nobody else is asked who they are
FRESH = 1.0  # seconds in which the folder is not looked at again


@dataclass(frozen=True)
class State:
    """What there is to show, and how to make the page of it."""

    version: str
    make: Callable[[], str]


class Page:
    """The last one made, for many readers at once."""

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
    """Listens on this machine, on a port up to 65535, or any free one for 0.

    Raises ValueError for a port that can't be had.
    """
    page = Page(look)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answers = {"/": (page.text, "text/html"), "/version": (page.version, "text/plain")}
            answer = answers.get(self.path.partition("?")[0])
            if not answer:
                self.send_error(HTTPStatus.NOT_FOUND)
                return
            body = answer[0]().encode()
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
        reason = "in use" if error.errno == errno.EADDRINUSE else "not for everyone to use"
        raise ValueError(f"port {port} is {reason}: --serve takes another, or 0 for any that is free") from None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that went away is no matter of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
