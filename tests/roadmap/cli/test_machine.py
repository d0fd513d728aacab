"""What the command says about itself and this machine, and that an odd environment changes nothing but the looks."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version

import pytest

import roadmap
from roadmap.cli import main
from tests.helpers.command import LIGHT, run_apart, run_here

TINY = ["--steps", "recipe", *LIGHT, "--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def test_the_version_is_that_of_the_installed_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"roadmap {version('roadmap-convnext')}\n"


def completions(line, **environment):
    """What a shell shows for the command line so far."""
    asking = {"_ARGCOMPLETE": "1", "_ARGCOMPLETE_STDOUT_FILENAME": "answer", "_ARGCOMPLETE_IFS": "\n"}
    asking |= {"_ARGCOMPLETE_SUPPRESS_SPACE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))}
    run_apart(env=asking | environment)
    with open("answer", encoding="utf-8") as answer:
        return answer.read().split("\n")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("roadmap ev", ["evaluate"]),
        ("roadmap run --aug", ["--augment"]),
        ("roadmap run --augment ", ["fast", "reference"]),
        ("roadmap run --steps ge", ["gelu"]),
        ("roadmap list --regime res", ["resnet-50", "resnet-200"]),
        ("roadmap table --data fash", ["fashion-mnist"]),
    ],
)
def test_a_shell_completes_verbs_options_and_values(line, expected):
    assert sorted(completions(line)) == sorted(expected)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_reads_its_script(shell):
    script = run_here("completion", shell)
    assert script and "roadmap" in script.out
    if program := shutil.which(shell):
        assert subprocess.run([program, "-n"], input=script.out, text=True).returncode == 0


@pytest.mark.slow
def test_bash_completes_by_its_script(tmp_path):
    (tmp_path / "roadmap").write_text(f'#!/bin/sh\nexec {sys.executable} -P -m roadmap "$@"\n')
    (tmp_path / "roadmap").chmod(0o755)
    code = 'eval "$(roadmap completion bash)"; COMP_LINE="roadmap run --steps layer-s"; COMP_POINT=${#COMP_LINE}; '
    code += "COMP_TYPE=9; COMP_WORDS=(roadmap run --steps layer-s); COMP_CWORD=3; compopt() { :; }; "
    code += '_python_argcomplete roadmap; echo "${COMPREPLY[@]}"'
    path = f"{tmp_path}:{os.environ['PATH']}"
    done = subprocess.run(["bash", "-c", code], env=os.environ | {"PATH": path}, capture_output=True, text=True)
    assert done.stdout.split() == ["layer-scale"], done.stderr


NO_TERMINAL = {"TERM": "dumb", "COLUMNS": "0", "LINES": "0", "NO_COLOR": "1"}
ODD = {
    "no home, ASCII": {"HOME": None, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"} | NO_TERMINAL,
    "no such home, Turkish": {"HOME": "/proc/none", "LANG": "tr_TR.UTF-8", "LC_ALL": "tr_TR.UTF-8"},
}


def numbers(text):
    """What a table or list says, without its lines and what is measured."""
    return [line.split()[:5] for line in text.splitlines() if line.startswith(("pico", "recipe"))]


@pytest.mark.slow
@pytest.mark.parametrize("name", ODD)
def test_the_environment_changes_only_the_looks(monkeypatch, name):
    expected = {"list": run_here("list"), "run": run_here("run", *TINY, "--seeds", 1, "--out", "usual")}
    for variable, value in ({"XDG_CACHE_HOME": None} | ODD[name]).items():
        monkeypatch.delenv(variable, raising=False) if value is None else monkeypatch.setenv(variable, value)
    for verb, options in (
        ("run", [*TINY, "--seeds", 1]),
        ("list", []),
        ("table", TINY),
        ("figure", [*TINY, "-o", "figure.png"]),
        ("report", TINY),
    ):
        done = run_apart(verb, *options)
        assert done and "Traceback" not in done.err, done.err
        if verb in expected:
            assert numbers(done.out) == numbers(expected[verb].out) != []
    assert roadmap.collect("runs").top1.tolist() == roadmap.collect("usual").top1.tolist()


@pytest.mark.slow
def test_a_closed_output_changes_nothing():
    for verb, *options in (["run", *TINY, "--seeds", "1"], ["list"], ["table", *TINY], ["report", *TINY]):
        command = [sys.executable, "-m", "roadmap", verb, *options]
        closed = subprocess.run(["sh", "-c", 'exec "$@" >&-', "sh", *command], capture_output=True, text=True)
        assert (closed.returncode, closed.stderr) == (0, ""), verb
    assert len(roadmap.collect("runs")) == 1


def test_a_terminal_without_a_width_shows_its_lines(monkeypatch):
    from io import StringIO

    from roadmap.progress import terminal

    for variable in ("COLUMNS", "LINES"):
        monkeypatch.setenv(variable, "0")
    output = StringIO()
    terminal(output).print("gelu s0: 97.36 % in 3s")
    assert output.getvalue() == "gelu s0: 97.36 % in 3s\n"


@pytest.mark.slow
def test_doctor_prints_a_line_for_each_finding(monkeypatch):
    done = run_here("doctor")
    assert done and done.out.endswith("A run can start.\n")
    for subject in ("python", "torch", "cores", "memory", "data digits", "folder", "processes", "study"):
        assert f"  {subject} " in done.out, subject
    assert os.listdir() == []  # nothing is left

    done = run_here("doctor", "--json", "--set", "execution.device=cuda")
    told = json.loads(done.out)
    assert (done.status, told["can_start"]) == (1, False)
    (failing,) = [finding for finding in told["findings"] if finding["prevents_runs"]]
    assert failing["subject"] == "study" and "execution.device=cuda requires a CUDA device" in failing["advice"]
