"""export: a trained network taken away."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_plugins, study_options
from roadmap.record.run import folders_below
from roadmap.serialization import suggest
from roadmap.study.load import load_study

if TYPE_CHECKING:
    from runner.measure.export import Trained


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("export", help="a trained network as a file for other programs")
    parser.add_argument("run", metavar="RUN", help="a run: by rung, rung-sSEED, identity or folder")
    parser.add_argument("--to", choices=("safetensors", "torchscript", "onnx"), default="safetensors")
    parser.add_argument("-o", "--output", type=Path, help="the file (default: in the run's folder)")
    add_weights(parser)
    add_plugins(parser)
    parser.set_defaults(function=export_run)


def add_weights(parser: Any) -> None:
    parser.add_argument("--weights", choices=("raw", "ema"), default="raw", help="as trained (default), or averaged")
    parser.add_argument("--out", type=Path, help="folder of the runs")


def find_run(written: str, out: Path | None) -> Path:
    """The folder of the one run that is meant. Raises ValueError where there is none, or several."""
    if (Path(written) / "manifest.json").is_file():
        return Path(written)
    out = out or Path(load_study().defaults.out)
    folders = sorted(folders_below(out).values())
    named: dict[str, list[Path]] = {}
    for folder in folders:
        short, _, identity = folder.name.rpartition("-")
        for name in dict.fromkeys((identity, short, short.rpartition("-s")[0], folder.name)):
            named.setdefault(name, []).append(folder)
    found = named.get(written, [])
    if not found:
        known = suggest([name for name in named if "-s" in name], written) if named else "there is none"
        raise ValueError(f"{out}: no run is called {written!r}; {known}")
    if len(found) > 1:
        raise ValueError(f"{written!r} are {len(found)} runs: {', '.join(map(str, found[:5]))}; a folder names one")
    return found[0]


def tell_unfinished(found: Trained) -> None:
    if found.unfinished:
        print(f"{found.run.name} is not trained to its end: {found.unfinished}", file=sys.stderr)


def export_run(options: argparse.Namespace) -> int:
    from runner.measure.export import SUFFIXES, export, read_trained

    study_options(options).study()  # with the plugins that its network may be of
    folder = find_run(options.run, options.out)
    found = read_trained(folder, averaged=options.weights == "ema")
    tell_unfinished(found)
    path = options.output or folder / f"network{SUFFIXES[options.to]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    off = export(found.run, found.network, options.to, path)
    size = path.stat().st_size / 2**20
    print(f"{options.to}: {path}, {size:.1f} MiB; read back, its outputs are {off:.0e} off at most")
    return 0
