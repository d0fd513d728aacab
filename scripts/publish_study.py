"""Packs the finished runs of a study for publication, without weights and logs.

    python scripts/publish_study.py runs docs/studies/pico.tar.xz

The archive has, for each run, the manifest, the metrics, the result and the predictions for the test images. The same
runs give the same bytes. Paths of this machine are left out of the manifests, as is its name.
"""

from __future__ import annotations

import io
import json
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

FILES = ("manifest.json", "metrics.jsonl", "result.json", "test_images.npz")


def contents(runs: Path) -> Iterator[tuple[str, bytes]]:
    """Names and bytes of the files of finished runs, in order."""
    for folder in sorted(result.parent for result in runs.glob("*/*/result.json")):
        for name in FILES:
            data = (folder / name).read_bytes()
            yield f"runs/{folder.parent.name}/{folder.name}/{name}", anonymous(data) if name == FILES[0] else data


def anonymous(manifest: bytes) -> bytes:
    content = json.loads(manifest)
    content["machine"]["host"] = ""
    content["command"][0] = "roadmap"
    return json.dumps(content, indent=1).encode()


def main(runs: str, archive: str) -> None:
    with tarfile.open(archive, "w:xz", preset=9) as packed:
        for name, data in contents(Path(runs)):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    print(f"{archive}: {Path(archive).stat().st_size:,} bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
