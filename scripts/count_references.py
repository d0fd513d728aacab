"""Counts all references with the installed versions of timm, torchvision and torch, for the file that ships with us.

    python scripts/count_references.py

Writes roadmap/network/counts.jsonl anew. Without a count for its versions, a first `roadmap list --references` builds
every network, which takes ten seconds.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from analysis.tables.counting import count_rungs
from roadmap.network import counts
from roadmap.options import Selection, StudyOptions
from roadmap.study.load import load_study


def main() -> None:
    shipped = counts.SHIPPED
    with tempfile.TemporaryDirectory() as cache:
        os.environ["XDG_CACHE_HOME"] = cache
        counts.SHIPPED = Path(cache) / "none"
        for regime in load_study().regimes:
            count_rungs(Selection.of(StudyOptions(regime=regime, references="all")))
        lines = sorted(counts.counts_file().read_text(encoding="utf-8").splitlines())
    shipped.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    print(f"{shipped}: {len(lines)} networks")


if __name__ == "__main__":
    main()
