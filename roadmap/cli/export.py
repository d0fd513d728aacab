"""export: write a trained network as a file for other programs."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_out, add_output, add_plugins, add_verb, study_options
from roadmap.record.run import find_run

if TYPE_CHECKING:
    from runner.measure.trained import Trained


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "export", "write a trained network as a file for other programs", "gelu-s0 --to onnx")
    parser.add_argument("run", metavar="RUN", help="the run: by rung, rung-sSEED, identity or folder")
    parser.add_argument(
        "--to",
        choices=("safetensors", "torchscript", "onnx", "timm"),
        default="safetensors",
        help="format (default: safetensors, the weights alone); timm: a folder for `timm.create_model`",
    )
    add_output(parser, "the file, or for timm the folder, to write (default: in the run's folder)")
    add_weights(parser)
    add_plugins(parser)
    parser.set_defaults(function=export_run)


def add_weights(parser: Any) -> None:
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="weights of the network: raw, as trained (default), or ema, averaged",
    )
    add_out(parser)


def warn_if_unfinished(trained: Trained) -> None:
    if trained.unfinished:
        print(f"{trained.run.name} has not finished training: {trained.unfinished}", file=sys.stderr)


def export_run(options: argparse.Namespace) -> int:
    from runner.measure.export import SUFFIXES, export_network
    from runner.measure.trained import read_trained

    study = study_options(options)
    study.study()  # loads the plug-ins that the network may need
    folder = find_run(options.run, study.out(options.out))
    trained = read_trained(folder, averaged=options.weights == "ema")
    warn_if_unfinished(trained)
    written = export_network(trained, options.to, options.output or folder / f"network{SUFFIXES[options.to]}")
    size, difference = written.bytes / 2**20, written.largest_difference
    print(f"{written.form}: {written.path}, {size:.1f} MiB; read back, its outputs differ by at most {difference:.0e}")
    return 0
