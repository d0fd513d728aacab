"""The Python API: a function for everything that the command does. See `roadmap.__all__` for the whole of it.

Each returns its result as a value: a pandas table, a matplotlib figure, or a dataclass. Options that choose a part of
the study are the keywords of `roadmap.options.StudyKeywords`, the same as on the command line. Bad input raises
ValueError with one clear sentence. `runner` and `analysis` are imported when a function that needs them is called.
"""

from __future__ import annotations
