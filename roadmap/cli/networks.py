"""export and evaluate: a trained network taken away, and held against images."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_study_options, choose
from roadmap.cli.text import many
from roadmap.plain import choices
from roadmap.record import Run, folders_below
from roadmap.study import load_study

if TYPE_CHECKING:
    from torch import nn

    from roadmap.execution import Execution


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("export", help="a trained network as a file for other programs")
    parser.add_argument("run", metavar="RUN", help="a run: by rung, rung-sSEED, identity or folder")
    parser.add_argument("--to", choices=("safetensors", "torchscript", "onnx"), default="safetensors")
    parser.add_argument("-o", "--output", type=Path, help="the file (default: in the run's folder)")
    _add_weights(parser)
    parser.set_defaults(function=export_run)

    parser = verbs.add_parser("evaluate", help="a trained network, or a peer's weights, on held-out images")
    parser.add_argument(
        "run", metavar="RUN", help="a run, as export takes it; with --state-dict a rung, such as layer-scale"
    )
    _add_weights(parser)
    parser.add_argument("--state-dict", type=Path, metavar="FILE", help="weights of the same network of a peer's")
    parser.add_argument("--of", metavar="LIBRARY/NAME", help="whose they are: torchvision/convnext_tiny, timm/resnet50")
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(function=evaluate_network)


def _add_weights(parser: Any) -> None:
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
        known = choices([name for name in named if "-s" in name], written) if named else "there is none"
        raise ValueError(f"{out}: no run is called {written!r}; {known}")
    if len(found) > 1:
        raise ValueError(f"{written!r} are {len(found)} runs: {', '.join(map(str, found[:5]))}; a folder names one")
    return found[0]


def export_run(options: argparse.Namespace) -> int:
    from runner.export import SUFFIXES, export, read_trained

    folder = find_run(options.run, options.out)
    run, network = read_trained(folder, averaged=options.weights == "ema")
    path = options.output or folder / f"network{SUFFIXES[options.to]}"
    path.parent.mkdir(parents=True, exist_ok=True)
    off = export(run, network, options.to, path)
    size = path.stat().st_size / 2**20
    print(f"{options.to}: {path}, {size:.1f} MiB; read back, its outputs are {off:.0e} off at most")
    return 0


def evaluate_network(options: argparse.Namespace) -> int:
    from roadmap.cli.progress import counting
    from runner.evaluation import evaluate_alone

    run, network, execution = _loaded(options) if options.state_dict else _trained(options)
    with counting("evaluating", "images") as report:
        found = evaluate_alone(run, network, execution, report)
    if options.json:
        print(json.dumps({"run": run.name, "data": run.data, **found}, indent=2))
        return 0
    said = [f"top-1 {found['top1']:.2f} %", f"top-5 {found['top5']:.2f} %"]
    said += [f"loss {found['test_loss']:.4f}"] if found["test_loss"] is not None else ["a loss that is no number"]
    print(f"{run.name} on {many(run.dataset.test_images, 'held-out image')} of {run.data}: {', '.join(said)}")
    return 0


def _trained(options: argparse.Namespace) -> tuple[Run, nn.Module, Execution]:
    """A run's, on its own data, or on other data of as many classes."""
    from runner.export import read_trained

    ignored = {"--of": options.of, "--regime": options.regime, "--fidelity": options.fidelity}
    ignored["--set"] = [each for each in options.settings if not each.startswith("execution.")]
    for name, value in ignored.items():
        if value:
            raise ValueError(f"{name} has no say in evaluating a run, which is as it was trained")
    folder = find_run(options.run, options.out)
    run, network = read_trained(folder, averaged=options.weights == "ema")
    options.regime = run.regime
    choice = choose(options)
    if options.data is not None:
        told = replace(choice.dataset, mean=run.dataset.mean, std=run.dataset.std)  # what its images were scaled by
        if told.classes != run.dataset.classes:
            raise ValueError(f"--data {options.data} has {told.classes} classes, {run.name} {run.dataset.classes}")
        run = replace(run, data=choice.place.data, dataset=told)
    return run, network, choice.execution


def _loaded(options: argparse.Namespace) -> tuple[Run, nn.Module, Execution]:
    """A rung's network with the weights of a peer's."""
    from roadmap.weights import load_peer, read_state_dict
    from runner.export import untrained

    if options.weights == "ema":
        raise ValueError("--weights ema is of a run: --state-dict is whatever the file holds")
    if options.of is None:
        raise ValueError("--state-dict needs --of LIBRARY/NAME, such as torchvision/convnext_tiny")
    choice = choose(options)
    run = choice.run(choice.rung(options.run))
    network = untrained(run)
    load_peer(network, options.of, read_state_dict(options.state_dict))
    return run, network, choice.execution
