"""The scripts: what a release contains, its version, and what is tested with it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

from tests.helpers import ROOT


def script(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / "scripts" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


release = script("release")


@pytest.mark.slow
def test_the_built_files_hold_what_is_tracked_and_work_without_the_checkout(tmp_path):
    """And without this environment's own installation of the package, which may be that checkout."""
    libraries = sysconfig.get_paths()["purelib"]
    command = [sys.executable, str(ROOT / "scripts" / "release.py"), "--folder", str(tmp_path / "dist")]
    done = subprocess.run([*command, "--libraries", libraries], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (wheel,), (sdist,) = (tmp_path / "dist").glob("*.whl"), (tmp_path / "dist").glob("*.tar.gz")
    assert "Checking" in done.stdout and "PASSED" in done.stdout
    with zipfile.ZipFile(wheel) as archive:
        assert archive.read("roadmap/ablations.yaml") == (ROOT / "ablations.yaml").read_bytes()
        assert {"analysis/report/page.html", "analysis/published/modernize_resnet50.csv"} <= set(archive.namelist())
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"ablations.yaml", "tests/goldens/costs.json", "scripts/test", "CHANGELOG.md"} <= names


def test_a_file_that_is_missing_or_too_much_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"a\.whl: analysis/page\.html must be in the wheel \(1 files are missing\)"):
        release._compare("a.whl", {"roadmap/x.py"}, {"roadmap/x.py", "analysis/page.html"}, "in the wheel")
    with pytest.raises(ValueError, match=r"a\.whl: runner/notes\.txt must not be in the wheel"):
        release._compare("a.whl", {"runner/notes.txt"}, set(), "in the wheel")


@pytest.fixture
def files(tmp_path):
    project, changelog = tmp_path / "pyproject.toml", tmp_path / "CHANGELOG.md"
    project.write_text('[project]\nname = "x"\nversion = "0.1.0"\n')
    changelog.write_text("# Changelog\n\n## Unreleased\n\n- New.\n\n## 0.1.0 (2026-01-01)\n\n- First.\n")
    return project, changelog


def test_a_release_writes_the_version_and_the_heading(files):
    release.write_version("0.2.0", *files)
    project, changelog = (path.read_text() for path in files)
    assert 'version = "0.2.0"' in project
    headings = [line for line in changelog.splitlines() if line.startswith("##")]
    assert headings[0] == "## Unreleased" and headings[1].startswith("## 0.2.0 (2")
    assert headings[2] == "## 0.1.0 (2026-01-01)"
    with pytest.raises(ValueError, match=r"must have the changes of 0\.3\.0 below '## Unreleased'"):
        release.write_version("0.3.0", *files)


@pytest.mark.parametrize(
    ("version", "message"),
    [("0.1.0", r"must be later than 0\.1\.0 \(got 0\.1\.0\)"), ("new", r"must be like 1\.2\.0 \(got 'new'\)")],
)
def test_a_version_that_cannot_be_released_changes_nothing(files, version, message):
    before = [path.read_text() for path in files]
    with pytest.raises(ValueError, match=message):
        release.write_version(version, *files)
    assert [path.read_text() for path in files] == before


def test_each_requirement_has_a_lower_bound_that_can_be_installed():
    bounds = dict(line.split("==") for line in script("lower_bounds").lower_bounds())
    assert {"torch", "torchvision", "timm", "numpy", "pandas", "pyarrow", "onnx"} <= bounds.keys()
    assert all("." in bound for bound in bounds.values())  # NAME==2 is not the release that NAME>=2 was tested with


def test_without_root_the_tests_that_are_skipped_are_named():
    text = (ROOT / "scripts" / "install-packages").read_text(encoding="utf-8")
    for uid, apart in (("1000", 4), ("0", 3)):  # root of a system without apt-get has no packages either
        stubs = f"dpkg() {{ return 1; }}; id() {{ echo {uid}; }}; command() {{ return 1; }}\n"
        done = subprocess.run(["bash", "-s"], input=stubs + text, capture_output=True, text=True, check=True)
        lines = done.stderr.splitlines()
        assert len(lines) == apart and all("skipped" in line for line in lines)
        assert any("slurm-wlm" in line for line in lines) and any("chromium-driver" in line for line in lines)
