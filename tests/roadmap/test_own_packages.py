"""`runner` and `analysis` are this project's, and libraries are the installed ones, among files of the same names."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pytest

from roadmap.cli import main
from roadmap.options import Selection, StudyOptions
from roadmap.plugins import LOADED, load_file, load_files, sources
from runner.machine.snapshot import PACKAGES, snapshot
from tests.helpers import ROOT
from tests.helpers.command import LIGHT, run_apart, shadow, untouched

LIBRARIES = ("queue", "random", "select", "typing", "multiprocessing", "yaml", "numpy", "torch")
ONE_EPOCH = ["--steps", "layer-scale", "--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", *LIGHT]


def python(*arguments, cwd, **environment):
    environment = {"PATH": "/bin", "OMP_NUM_THREADS": "1"} | environment
    return subprocess.run([sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.slow
@pytest.mark.parametrize("names", [("runner", "analysis", *LIBRARIES), ("runner/", "analysis/")])
def test_the_working_directory_may_hold_modules_of_any_name(tmp_path, names):
    """`python -m roadmap` and the processes that it starts, one of them for the images of each run."""
    shadow(tmp_path, *names)
    done = run_apart("run", "--seeds", "1", *ONE_EPOCH, "--set", "execution.workers=1", cwd=tmp_path)
    assert done.status == 0, done.err
    assert list(tmp_path.glob("runs/*.png")) and not list(tmp_path.rglob("*.pyc"))


@pytest.mark.slow
def test_a_script_beside_modules_of_these_names_may_train(tmp_path):
    shadow(tmp_path, "runner", "analysis/")
    script = """
import roadmap
if __name__ == "__main__":
    short = {"recipe.epochs": 1, "recipe.warmup_epochs": 0, "design.width": 8}
    done = roadmap.run(steps="layer-scale", seeds=1, settings=short, out="runs", progress=False)
    print([run.state for run in done.runs])
"""
    (tmp_path / "study.py").write_text(script)
    done = python("study.py", cwd=tmp_path, PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert (done.returncode, done.stdout) == (0, "['finished']\n"), done.stderr


@pytest.mark.slow
def test_what_is_imported_already_is_said_and_left_to_the_program(tmp_path):
    (tmp_path / "runner.py").write_text("HERE = True\n")
    program = "import runner, roadmap; assert runner.HERE and roadmap.ladder('pico'); roadmap.collect('runs')"
    done = python("-c", program, cwd=tmp_path, PYTHONPATH=str(ROOT))
    last = done.stderr.splitlines()[-1]
    assert f"{tmp_path}/runner.py was imported as runner" in last and "Rename it" in last


@pytest.mark.slow
def test_a_checkout_runs_its_own_code_wherever_another_is_installed(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ablations.yaml", tmp_path)
    job = tmp_path / "runner" / "launch" / "job.py"
    job.write_text(f"{job.read_text()}\nopen({str(tmp_path / 'ran')!r}, 'w').close()\n")
    done = python("-m", "roadmap", "run", "--seeds", "1", *ONE_EPOCH, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_another_distribution_over_a_package_is_one_sentence(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ablations.yaml", tmp_path / "roadmap")
    (tmp_path / "runner" / "__init__.py").write_text('"""A test runner of somebody else."""\n')
    (tmp_path / "elsewhere").mkdir()
    done = python(
        "-m", "roadmap", "run", "--seeds", "1", *ONE_EPOCH, cwd=tmp_path / "elsewhere", PYTHONPATH=str(tmp_path)
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert f"{tmp_path}/runner is not roadmap's package runner" in done.stderr


OPTIMIZER = """
import factor, roadmap, torch

@roadmap.optimizer("mine")
def mine(parameters, recipe):
    return torch.optim.SGD(parameters, recipe.learning_rate * factor.FACTOR)
"""
PLUGIN = "import neighbour, roadmap\n\n@roadmap.step('mine')\ndef mine(design):\n    return neighbour.changed(design)\n"
NEIGHBOUR = "from inner.deep import replace\n\ndef changed(design):\n    return replace(design, head_norm='ln')\n"


@pytest.fixture
def plugin(tmp_path):
    folder = tmp_path / "plug-ins"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "__init__.py").write_text("")
    (folder / "inner" / "deep.py").write_text("from dataclasses import replace\n")
    (folder / "neighbour.py").write_text(NEIGHBOUR)
    (folder / "other.py").write_text("raise SystemExit('nothing imports this')\n")
    (folder / "mine.py").write_text(PLUGIN)
    return folder / "mine.py"


def test_a_plugin_imports_the_modules_beside_it(plugin, capsys):
    shadow(plugin.parent, "runner", "torch")  # other modules come first
    assert main(["show", "+mine", "--plugin", str(plugin)]) == 0
    assert "head_norm: ln" in capsys.readouterr().out


def test_what_a_plugin_imports_is_part_of_the_identity_of_its_runs(tmp_path):
    (tmp_path / "factor.py").write_text("FACTOR = 1.0\n")
    (tmp_path / "mine.py").write_text(OPTIMIZER)
    (tmp_path / "torch.py").write_text("")  # not imported: the library comes first
    options = StudyOptions(settings=("recipe.optimizer=mine",), plugins=(tmp_path / "mine.py",))
    identities = []
    for factor in (1.0, 0.1):
        (tmp_path / "factor.py").write_text(f"FACTOR = {factor}\n")
        with untouched():
            selection = Selection.of(options)
            identities.append(selection.run(selection.rung("recipe")).identity)
            assert sources(tmp_path / "mine.py") == [tmp_path / "factor.py", tmp_path / "mine.py"]
    assert len(set(identities)) == 2


def test_a_relative_import_of_a_plugin_is_one_sentence(tmp_path):
    (tmp_path / "mine.py").write_text("from . import helper\n")
    with pytest.raises(ValueError, match=r"mine\.py: ImportError: attempted relative import"):
        load_file(tmp_path / "mine.py")


def test_what_a_plugin_imports_is_part_of_its_code(plugin):
    load_file(plugin)
    before = {plugin: LOADED[plugin]}
    (plugin.parent / "other.py").write_text("")
    load_files(before)
    (plugin.parent / "inner" / "deep.py").write_text("from dataclasses import replace\n\nNEW = 1\n")
    with pytest.raises(ValueError, match="changed after it was loaded"):
        load_files(before)


@pytest.mark.parametrize(
    ("code", "name", "file"),
    [
        ("import neighbour", "neighbour", r"neighbour\.py"),
        ("import inner.deep", "inner", r"inner/__init__\.py"),
        ("from inner.deep import replace", "inner", r"inner/__init__\.py"),
        ("from inner import deep", "inner", r"inner/__init__\.py"),
    ],
)
def test_a_plugin_that_would_get_another_ones_module_is_refused(plugin, tmp_path, code, name, file):
    load_file(plugin)
    shutil.copytree(plugin.parent, tmp_path / "two")
    two = tmp_path / "two" / "two.py"
    two.write_text(f"{code}\n")
    with pytest.raises(ValueError, match=rf"two\.py imports {name}, and would get .*plug-ins/{file}, which another"):
        load_file(two)
    two.write_text("import json\n")  # the modules are beside it, too, but it does not import them
    load_file(two)


def test_a_library_installed_below_a_plugins_folder_is_no_module_of_the_plugin(plugin, tmp_path, monkeypatch):
    load_file(plugin)
    libraries = plugin.parent / ".venv" / "site-packages"
    libraries.mkdir(parents=True)
    (libraries / "a_library.py").write_text("")
    monkeypatch.syspath_prepend(libraries)
    (tmp_path / "two" / "a_library").mkdir(parents=True)  # a folder of data, not of modules
    (tmp_path / "two" / "two.py").write_text("import a_library\n")
    load_file(tmp_path / "two" / "two.py")


def test_jobs_get_a_copy_of_all_that_a_plugin_imports(plugin, tmp_path):
    _, (copy,) = snapshot(tmp_path / "code", [plugin])
    copied = {str(path.relative_to(copy.parent)) for path in copy.parent.rglob("*.py")}
    assert copied == {"mine.py", "neighbour.py", "inner/__init__.py", "inner/deep.py"}
    codes = []
    for path in (plugin, copy):
        with untouched():
            load_file(path)
            codes.append(LOADED[path])
    assert codes[0] == codes[1]
