"""Packs the finished runs of a study for publication, without weights and logs.

    python scripts/publish_study.py runs docs/studies/pico.tar.xz

The archive has, for each run, the manifest, the metrics, the result and, of classifiers, the predictions for the test
images, unless --without-images: with ten thousand of them a run has twenty kilobytes. It also has the ablations.yaml
beside the runs as it is, if there is one, so that a study stays readable after its regime has changed. The same files
give the same bytes. Command lines, paths and names of machines are left out of the manifests.
"""

from __future__ import annotations

import argparse
import io
import json
import tarfile
from pathlib import Path

STUDY_FILE = "ablations.yaml"
MANIFEST = "manifest.json"
FILES = (MANIFEST, "metrics.jsonl", "result.json")
OUTCOMES = "test_images.npz"  # of classifiers


def contents(runs: Path, with_images: bool = True) -> dict[str, bytes]:
    """The files of all finished runs by name in the archive. Raises ValueError without any, or if a file lacks."""
    folders = sorted(result.parent for result in runs.glob("*/*/result.json"))
    if not folders:
        raise ValueError(f"{runs}: no finished run; it must be a folder of runs, as `roadmap run` writes it")
    study = runs.resolve().parent / STUDY_FILE
    found = {STUDY_FILE: study.read_bytes()} if study.is_file() else {}
    for folder in folders:
        for name in files_of(folder) if with_images else FILES:
            if not (folder / name).is_file():
                raise ValueError(f"{folder} has no {name}; remove the folder, or train the run again")
            data = (folder / name).read_bytes()
            found[f"runs/{folder.parent.name}/{folder.name}/{name}"] = anonymous(data) if name == MANIFEST else data
    return found


def files_of(folder: Path) -> tuple[str, ...]:
    manifest = folder / MANIFEST
    is_transfer = manifest.is_file() and json.loads(manifest.read_bytes())["run"].get("transfer")
    return FILES if is_transfer else (*FILES, OUTCOMES)


def anonymous(manifest: bytes) -> bytes:
    content = json.loads(manifest)
    content["machine"]["host"] = ""
    content |= {"command": [], "data_path": None}
    return json.dumps(content, indent=1).encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, help="folder of runs")
    parser.add_argument("archive", type=Path, help="file to write, NAME.tar.xz")
    parser.add_argument("--without-images", action="store_true", help="leave out the predictions for test images")
    options = parser.parse_args()
    try:
        files = contents(options.runs, with_images=not options.without_images)
    except ValueError as error:
        parser.error(str(error))
    except KeyError as error:
        parser.error(f"{options.runs}: a manifest has no {error}; it must be as `roadmap run` writes it")
    options.archive.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(options.archive, "w:xz", preset=9) as packed:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            packed.addfile(entry, io.BytesIO(data))
    study = f", with its {STUDY_FILE}" if STUDY_FILE in files else ""
    print(f"{options.archive}: {options.archive.stat().st_size:,} bytes{study}")


if __name__ == "__main__":
    main()
