"""The packages, what each may import, and the documents."""

from __future__ import annotations

import ast
import contextlib
import graphlib
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib

import pytest

import roadmap
from tests.helpers import ROOT
from tests.helpers.training import AUGMENTED


def imports(path):
    """The modules that a file imports, each with whether it does so when it is itself imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    inside = {
        id(node)
        for scope in ast.walk(tree)
        if isinstance(scope, ast.FunctionDef) or (isinstance(scope, ast.If) and "TYPE_CHECKING" in ast.dump(scope.test))
        for node in ast.walk(scope)
    }
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        for name in names:
            yield name, id(node) not in inside


def modules(path):
    return [name for name, _ in imports(path)]


ROOMS = ("roadmap", "runner", "analysis")
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for room in ROOMS
    for path in (ROOT / room).rglob("*.py")
}
MOST_MODULES = 12  # side by side in a package


def known_imports(path):
    """This project's modules that a file imports, within functions too, but not those for type checkers alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for_types = {
        id(node)
        for branch in ast.walk(tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.dump(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom):
            # Both the package and, where the name is a module of it, the module.
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
            yield from (name for name in names if name in MODULES)


def test_no_modules_import_each_other_in_a_circle():
    graph = {name: set(known_imports(path)) - {name} for name, path in MODULES.items()}
    tuple(graphlib.TopologicalSorter(graph).static_order())  # raises CycleError, which names the modules


# Each imports those before it, and what is within itself.
LAYERS = ("roadmap.data", "roadmap.network", "roadmap.spaces", "roadmap.study", "roadmap.record", "runner.machine")
LAYERS += ("runner.data", "runner.train", "runner.launch", "runner.measure")


def layer_of(module):
    """Its place among the layers; -1 for the modules that stand beside them."""
    return next((i for i, layer in enumerate(LAYERS) if f"{module}.".startswith(f"{layer}.")), -1)


def test_packages_import_those_below_them():
    beside = {f"roadmap.{name}" for name in ("__main__", "api", "estimates", "options", "progress")}  # on all of it
    for name, path in MODULES.items():
        if name not in beside and not name.startswith(("roadmap.timm", "roadmap.cli", "analysis")):
            above = [other for other in known_imports(path) if layer_of(other) > layer_of(name)]
            assert not above, f"{name} imports {above}"


def test_serialization_knows_no_other_part_of_the_project():
    for name, path in MODULES.items():
        if name.startswith("roadmap.serialization"):
            others = {other for other in known_imports(path) if not other.startswith("roadmap.serialization")}
            assert others <= {"roadmap.text"}, name


@pytest.mark.parametrize("package", sorted({str(path.parent.relative_to(ROOT)) for path in MODULES.values()}))
def test_a_package_has_few_modules_and_says_what_belongs_there(package):
    files = [path for path in (ROOT / package).glob("*.py") if path.name != "__init__.py"]
    assert len(files) <= MOST_MODULES or package == "roadmap/cli"  # which has a module for each verb
    text = ast.get_docstring(ast.parse((ROOT / package / "__init__.py").read_text(encoding="utf-8")))
    assert text and (package == "roadmap" or "May import" in text)


@pytest.mark.parametrize("room", ROOMS)
def test_imports_go_one_way(room):
    others = {"roadmap", "runner", "analysis"} - {room, "roadmap"}
    for path in (ROOT / room).rglob("*.py"):
        for name, at_once in imports(path):
            free = path.is_relative_to(ROOT / "roadmap" / "cli") or path == ROOT / "roadmap" / "api.py"
            lazily = free and not at_once
            assert name.split(".")[0] not in others or lazily, f"{path} imports {name}"


def test_torch_stays_out_of_designs_steps_ladders_and_costs():
    slow = {"torch", "numpy", "matplotlib", "rich", "jinja2", "argcomplete", "packaging"}
    heavy = ("roadmap.timm", "roadmap.network.modules", "roadmap.network.weights", "roadmap.__main__")
    light = [name for name in sorted(MODULES) if name.startswith("roadmap.") and not name.startswith(heavy)]
    code = "import sys\n" + "\n".join(f"import {name}" for name in light)
    code += "\nroadmap.cli.make_parser()  # with the modules of all verbs"
    code += f"\nassert not {slow} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("verb", [("list",), ("show", "gelu"), ("diff", "recipe", "gelu"), ("cost",)], ids=" ".join)
def test_what_is_arithmetic_is_answered_without_torch(verb):
    arguments = (*verb, "--regime", "resnet-50")
    code = f"import sys\nfrom roadmap.cli import main\nassert main({arguments}) == 0\n"
    code += "assert not {'torch', 'timm', 'torchvision'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


TRAINING = """
import sys
from pathlib import Path
from roadmap.study.selection import ladder
from roadmap.record.run import Run
from roadmap.serialization.plain_data import changed
from roadmap.study.load import load_study
from runner.train.engine import train
(rung,) = ladder("pico", sys.argv[1])
study, short = load_study(), {"epochs": 1, "warmup_epochs": 0, "batch_size": 256, **eval(sys.argv[3])}
experiment = changed(rung.experiment, {"recipe": vars(rung.experiment.recipe) | short}, "short")
run = Run("pico", rung.name, experiment, "digits", study.dataset("digits"), 0, "paper")
train(run, Path(sys.argv[2]), study.execution)
print(*({module.split(".")[0] for module in sys.modules}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rung", "recipe", "unneeded"),
    [
        ("pico", {}, {"timm", "torchvision", "cv2", "PIL", "sklearn", "pandas", "matplotlib", "tensorboard", "wandb"}),
        ("layer-scale", {}, {"timm", "cv2", "PIL", "sklearn", "pandas", "matplotlib", "tensorboard", "wandb"}),
        ("layer-scale", AUGMENTED, {"cv2", "sklearn", "pandas", "matplotlib", "tensorboard"}),
    ],
)
def test_training_imports_what_the_recipe_asks_for(tmp_path, rung, recipe, unneeded):
    command = [sys.executable, "-c", TRAINING, rung, str(tmp_path), repr(recipe)]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    imported = set(printed.splitlines()[-1].split())
    assert "torch" in imported and not unneeded & imported
    assert ("timm" in imported) == ("timm" not in unneeded)


SERVING = """
import sys
from roadmap.serialization.plain_data import changed
from roadmap.study.selection import ladder
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.launch.local import process_context
experiments = [
    changed(rung.experiment, {"recipe": vars(rung.experiment.recipe) | recipe}, rung.name)
    for rung, recipe in zip(ladder("pico", "pico,layer-scale"), ({}, eval(sys.argv[1])))
]
digits = load_study().dataset("digits")
runs = [Run("pico", "a rung", experiment, "digits", digits, 0, "paper") for experiment in experiments]
with process_context(runs).Pool(1) as pool:
    print(*pool.apply(eval, ("list(__import__('sys').modules)",)))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("recipe", "timm"), [({}, False), (AUGMENTED, True)])
def test_a_runs_process_is_born_with_what_its_training_imports(recipe, timm):
    command = [sys.executable, "-c", SERVING, repr(recipe)]
    found = set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split())
    assert {"torch", "torch._dynamo", "runner.train.engine"} <= found  # the second by the first optimizer of a process
    assert ("timm.data" in found) == timm


def test_all_names_exist_and_are_sorted():
    assert roadmap.__all__ == sorted(roadmap.__all__)
    for name in roadmap.__all__:
        assert getattr(roadmap, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'bild'"):
        _ = roadmap.bild


def test_the_page_on_the_api_has_every_function():
    page = (ROOT / "docs" / "python.md").read_text(encoding="utf-8")
    functions = [name for name in roadmap.__all__ if getattr(roadmap, name).__module__ == "roadmap.api"]
    assert "run" in functions
    assert [name for name in functions if f"roadmap.{name}(" not in page] == []


def test_promised_names_work_as_promised():
    rung = roadmap.ladder("resnet-50", steps="all", fidelity="paper")[1]
    assert (rung.name, rung.title, rung.group, rung.adopted) == ("recipe", "training recipe", "Training", True)
    experiment = roadmap.compose("resnet-50", ["gelu", "layer-norm"])
    counted = roadmap.cost(experiment.design, input_size=224)
    assert counted.parameters > 0 and counted.macs > 0
    assert callable(roadmap.load_torchvision)
    assert roadmap.build(experiment.design, num_classes=1000).head.out_features == 1000


def test_tests_and_benchmarks_stand_on_their_own():
    """What tests share is in tests/helpers: no test module imports another, and no benchmark imports tests."""
    for path in (ROOT / "tests").rglob("*.py"):
        for name in modules(path):
            assert name.split(".")[0] != "tests" or name.startswith("tests.helpers"), f"{path.name} imports {name}"
    for path in (ROOT / "benchmarks").rglob("*.py"):
        assert not [name for name in modules(path) if name.split(".")[0] == "tests"], path.name


def used_names(text):
    """The names of modules that a script imports, takes from a module, or replaces by `mock.patch`.

    Also those of scripts for other processes, which are strings in it.
    """
    tree = ast.parse(text)
    of_module = {}  # full names, by the name in the script
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            of_module |= {alias.asname or alias.name: alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            of_module |= {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in of_module:
            yield f"{of_module[ast.unparse(node.value)]}.{node.attr}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "mock.patch.object":
            module, name, *_ = node.args
            yield f"{of_module.get(ast.unparse(module))}.{ast.literal_eval(name)}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "mock.patch":
            yield ast.literal_eval(node.args[0])
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "import " in node.value:
            with contextlib.suppress(SyntaxError):  # prose
                yield from used_names(node.value)
    yield from of_module.values()


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_benchmarks_use_names_that_exist(path):
    for name in set(used_names(path.read_text(encoding="utf-8"))):
        if name.split(".")[0] in ROOMS:
            pkgutil.resolve_name(name)


FOLDERS = (ROOT, ROOT / "docs", ROOT / "docs" / "studies", ROOT / "benchmarks", ROOT / "analysis" / "published")
DOCUMENTS = sorted(path for folder in FOLDERS for path in folder.glob("*.md"))
README_SECTIONS = ["Status and limits", "A fresh machine", "Three more commands", "Glossary", "Tasks", "Python"]
README_SECTIONS += ["Writing a step", "Layout", "Licence"]


def sections(document):
    return re.findall(r"^#{1,6} (.+)$", document.read_text(encoding="utf-8"), flags=re.MULTILINE)


def anchor(heading):
    """A heading's name in links, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)]+)\)", document.read_text(encoding="utf-8")):
        if "://" not in target:
            path, _, heading = target.partition("#")
            linked = document.parent / path if path else document
            assert linked.exists(), target
            assert not heading or heading in map(anchor, sections(linked)), target


def test_the_readme_is_short_and_has_its_sections_in_order():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 120
    assert text.index("![") < text.index("\n## ")  # the figure comes first
    assert sections(ROOT / "README.md") == ["roadmap", *README_SECTIONS]
    assert re.findall(r"^\| (\w+) \|", section(text, "Glossary"), flags=re.MULTILINE) == [
        "word", "rung", "step", "regime", "fidelity", "reference", "run"
    ]  # fmt: skip
    assert len(re.findall(r"^    roadmap ", section(text, "Three more commands"), flags=re.MULTILINE)) == 3
    assert len(re.findall(r"^- .*\]\(docs/", section(text, "Tasks"), flags=re.MULTILINE)) == 5


def section(text, title):
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def commands(document):
    """What the command is called with in a document's code, word by word."""
    text = re.sub(r"\\\n\s*", " ", document.read_text(encoding="utf-8"))  # a backslash joins two lines
    for line in re.findall(r"^ {4}(.*\broadmap [a-z].*)$", text, flags=re.MULTILINE):
        for part in re.split(r"&&|;|\s{3,}", line):  # what stands behind wide spaces is an explanation
            if call := re.match(r"\s*(?:[A-Z_]+=\S+ )?roadmap ([a-z]+(?: .*)?)$", part):
                words = shlex.split(call[1], comments=True)
                yield [re.sub(r"^\[?(.+?)(\.\.\.)?\]?$", r"\1", word) for word in words]  # [RUN...] is RUN


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_documents_commands_are_ones_that_the_parser_takes(document):
    from roadmap.cli import make_parser

    for words in commands(document):
        make_parser().parse_args(words)


def test_documents_have_commands():
    assert len(list(commands(ROOT / "README.md"))) >= 4
    assert sum(len(list(commands(document))) for document in DOCUMENTS) >= 60


def test_each_verb_is_found_in_the_module_that_is_said_to_add_it():
    from roadmap.cli import VERBS, make_parser

    def verbs_of(parser):
        return re.findall(r"^ {4}(\w+)(?: |$)", parser.format_help(), flags=re.MULTILINE)

    assert verbs_of(make_parser()) == [verb for verbs in VERBS.values() for verb in verbs]
    for verbs in VERBS.values():
        for verb in verbs:
            assert verbs_of(make_parser(verb)) == list(verbs)


def test_a_verb_that_is_none_is_told_the_nearest(capsys):
    from roadmap.cli import main

    assert main(["lst"]) == 2
    assert capsys.readouterr().err.startswith("roadmap: unknown verb 'lst'; did you mean 'list'? valid: list, show, ")


def test_versions_agree():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    headings = sections(ROOT / "CHANGELOG.md")
    assert headings[1] == "Unreleased"  # where changes are added; scripts/release.py moves it up
    assert len(headings) == 2 or headings[2].startswith(f"{project['version']} (")
    from importlib.metadata import version

    from runner.train.provenance import LIBRARIES

    assert project["name"] == LIBRARIES[0] and version(project["name"]) == project["version"]
