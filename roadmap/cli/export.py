"""export: write a trained network as a file for other programs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from roadmap.cli.options import add_out, add_output, add_plugins, add_verb, study_options


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
    parser.set_defaults(function=export)


def add_weights(parser: Any) -> None:
    parser.add_argument(
        "--weights",
        choices=("raw", "ema"),
        default="raw",
        help="weights of the network: raw, as trained (default), or ema, averaged",
    )
    add_out(parser)


def export(options: argparse.Namespace) -> int:
    from runner.measure.export import export_run

    averaged, study = options.weights == "ema", study_options(options)
    written = export_run(options.run, options.to, options.output, averaged=averaged, study=study, out=options.out)
    if written.note:
        print(written.note, file=sys.stderr)
    size, difference = written.bytes / 2**20, written.largest_difference
    compared = "it finds nothing in the images that outputs are compared on"
    if difference is not None:
        compared = f"its outputs differ by at most {difference:.0e}"
    print(f"{written.form}: {written.path}, {size:.1f} MiB; read back, {compared}")
    return 0
