"""Imports matplotlib, also if MPLBACKEND names a backend that is not installed here.

A notebook sets it in all processes that it starts. The figures do not depend on it: each file is written by the backend
for its format. Imported before all modules of this package.
"""

from __future__ import annotations

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    if backend is None:
        return
    try:
        import matplotlib
    finally:
        os.environ["MPLBACKEND"] = backend
    with contextlib.suppress(ValueError):
        matplotlib.rcParams["backend"] = backend  # for figures of the user's own


_import_matplotlib()
