"""Command lines and studies with anything in them: a result, or one sentence and status 2."""

from __future__ import annotations

import copy
import os
from random import Random

import pytest
import yaml

from roadmap.study.load import FILE_NAME, load_study, parse_study
from tests.helpers import ROOT
from tests.helpers.command import run_here
from tests.helpers.mutations import mutated

BATCHES = int(os.environ.get("ROADMAP_FUZZ", "4"))
VERBS = ["list", "show", "diff", "cost", "status", "logs", "collect", "table", "run --dry-run"]
VERBS += ["table", "report"]
WORDS = r"""--steps --ablation --set --data --regime --fidelity --references --base --seeds --out --json --help --metric
    --published --format --kind --gpus --device --throughput --on --cluster --weights --to --plugin -o --dry-run -- @ =
    all gelu gelu+layer-norm recipe..gelu kernel-size=13 kernel-size=07 stage-ratio=1:1:1:1 width=1e9 gelu@recipe , + ..
    gelu-s0 run-19070e908203 19070e908203 pico resnet-50 nano paper digits imagenet ./ / NAME=. ~ orders:2 swin-t csv
    recipe.epochs=030 recipe.epochs=1:30 recipe.epochs=4e0 recipe.epochs=-1 recipe.epochs= recipe=1 recipe.=1 .=1 latex
    design.depths=[1,1,1,1] design.depths={} design.width=[] execution.workers=auto recipe.learning_rate=nan top1 ema
    recipe.betas=[[[[ recipe.ema={a:1,a:2} leave-one-out 0 1 -1 1e400 0x10 数据 $x$ %s {} [] ''""".split()
WORDS += ["", " ", "\0", "\ud800", "x" * 300]


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, BATCHES))])
def test_no_command_line_gives_a_traceback(tmp_path, number):
    draw = Random(number)
    for _ in range(100):
        words = [*draw.choice(VERBS).split(), *draw.choices(WORDS, k=draw.randrange(1, 6))]
        done = run_here(*words, cwd=tmp_path)
        assert done.status in (0, 1, 2), words
        assert done.status != 2 or len(done.err.strip().splitlines()) == 1, (words, done.err)


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, BATCHES))])
def test_no_study_gives_a_traceback(tmp_path, number):
    draw, text = Random(number), (ROOT / FILE_NAME).read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    for _ in range(100):
        try:
            parse_study(mutated(data, draw))
        except ValueError as error:
            assert str(error)
    path, lines = tmp_path / FILE_NAME, text.splitlines()
    for _ in range(20):
        damaged = copy.copy(lines)
        i = draw.randrange(len(lines))
        damaged[i] = draw.choice(
            (damaged[i][: draw.randrange(len(damaged[i]) + 1)], "- 030", "a: 1:30", "[" * 5000, "\0", "&a [*a]")
        )
        path.write_text("\n".join(damaged), encoding="utf-8")
        try:
            load_study(path)
        except ValueError as error:
            assert FILE_NAME in str(error)
