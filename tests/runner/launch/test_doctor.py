"""What keeps a run from starting is found before it is started, with what to do about it."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import roadmap
from runner.data import shared_memory
from runner.launch import doctor
from runner.machine.snapshot import ROOT
from tests.helpers.training import warm_fork_server


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    warm_fork_server()


def preventing(findings):
    return {finding.subject: f"{finding.found}; {finding.advice}" for finding in findings if finding.prevents_runs}


def advice(findings):
    return {finding.subject: finding.advice for finding in findings if finding.advice}


def test_a_run_can_start_here():
    findings = roadmap.doctor()
    assert preventing(findings) == {} and doctor.can_start(findings)


def test_what_is_wrong_with_the_study_is_found(tmp_path):
    shutil.copy(ROOT / "ablations.yaml", tmp_path)
    with open("ablations.yaml", "a") as study:
        study.write("regime: pico\n")
    assert "ablations.yaml: regime: unknown key" in preventing(roadmap.doctor())["study"]


def test_absent_data_keep_a_run_from_starting_unless_it_downloads_them():
    assert "no such folder" in preventing(roadmap.doctor(data="imagenet"))["study"]
    findings = roadmap.doctor(data="cifar10")
    assert preventing(findings) == {}
    found = {finding.subject: finding.found for finding in findings}
    assert found["data cifar10"] == "cifar10: not in data/cifar-10-batches-py; the first run downloads it to data/"


def test_a_folder_that_cannot_be_written_is_found():
    assert "--out FOLDER names another" in preventing(roadmap.doctor(out="/proc/runs"))["folder"]


def test_libraries_that_do_not_match_are_found(monkeypatch):
    def fail(name):
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", fail)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: "1.0")
    findings = tuple(doctor._libraries())
    assert "operator torchvision::nms does not exist; install torch" in preventing(findings)["torchvision"]
    lacks = [finding for finding in findings if finding.found.startswith("torch 1.0")]
    assert lacks[0].subject == "libraries" and lacks[0].advice.startswith("pip install 'torch")


def test_another_distribution_of_a_package_is_found(tmp_path, monkeypatch):
    other = tmp_path / "site" / "fast_runner-1.0.dist-info"
    other.mkdir(parents=True)
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: fast-runner\nVersion: 1.0\n")
    (other / "top_level.txt").write_text("runner\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    (finding,) = doctor._other_distributions()
    assert finding.found == "fast-runner also installs a package 'runner'"
    assert finding.advice.startswith("uninstall fast-runner")


def test_extras_that_are_missing_are_named(monkeypatch):
    versions = doctor.importlib.metadata.version

    def without_wandb(name):
        if name == "wandb":
            raise doctor.importlib.metadata.PackageNotFoundError(name)
        return versions(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", without_wandb)
    findings = tuple(doctor._extras())
    assert advice(findings)["extra wandb"] == "pip install 'roadmap-convnext[wandb]', if you need it"
    assert preventing(findings) == {}


def test_little_shared_memory_is_found(monkeypatch):
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 2**16)
    assert "docker run --shm-size" in advice(doctor._memory())["/dev/shm"]
    with_workers = roadmap.doctor(settings={"execution.workers": 2})
    assert "data workers need" in preventing(with_workers)["study"]


def test_a_process_that_does_not_start_is_found(monkeypatch):
    monkeypatch.setattr(doctor, "_answer", fail)
    findings = tuple(doctor._guarded("processes", doctor._processes))
    assert "ended with status 3" in preventing(findings)["processes"]


def fail():
    raise SystemExit(3)


def test_slurm_that_does_not_answer_is_said(monkeypatch):
    monkeypatch.setattr(doctor.shutil, "which", lambda name: "/usr/bin/sbatch")
    monkeypatch.setattr(doctor.slurm_cli.subprocess, "run", unreachable)
    (finding,) = doctor._slurm()
    assert finding.advice.startswith("Slurm does not answer")
    assert not finding.prevents_runs


def unreachable(command, **options):
    raise subprocess.TimeoutExpired(command, options["timeout"])
