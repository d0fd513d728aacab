"""Imports matplotlib, also if MPLBACKEND names a backend that is not installed here.

A notebook sets it in all processes that it starts. The figures do not depend on it: each file is written by the backend
for its format. Imported before all modules of this package.
"""

from __future__ import annotations

import contextlib
import os
import sys


def _import_matplotlib() -> None:
    """Raises ValueError for a matplotlibrc that matplotlib itself can't read, without which it can't be imported."""
    backend = None if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", None)
    try:
        import matplotlib
    except UnicodeDecodeError as error:
        raise ValueError(f"matplotlib can't read its settings: matplotlibrc must be UTF-8 ({error.reason})") from None
    finally:
        if backend is not None:
            os.environ["MPLBACKEND"] = backend
    if backend is not None:
        with contextlib.suppress(ValueError):
            matplotlib.rcParams["backend"] = backend  # for figures of the user's own


_import_matplotlib()
