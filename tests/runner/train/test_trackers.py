"""TensorBoard and Weights & Biases have what the record has, and training does not know of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from roadmap.cli import main
from roadmap.files import read_json
from roadmap.record.events import EpochDone, Finished, Warned
from roadmap.record.folder import read_metrics
from runner.launch.job import train_job
from runner.machine.distributed import SINGLE_PROCESS
from runner.machine.requests import Request
from runner.train import checkpoint
from runner.train.trackers import missing_trackers
from runner.train.training import Stopped
from tests.helpers import ROOT
from tests.helpers.command import run_here
from tests.helpers.training import (
    FORKSERVER,
    Death,
    assert_same,
    end,
    execution,
    start_processes,
    train,
    warm_fork_server,
)
from tests.helpers.waiting import until

BOTH = {"tensorboard": True, "wandb": "roadmap"}
QUICK = ["--steps", "recipe", "--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0"]


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    yield
    if "WANDB_SERVICE" in os.environ:  # of W&B's process, which this one's would share
        sys.modules["wandb"].teardown()
        assert "WANDB_SERVICE" not in os.environ


def tensorboard(folder):
    """The rows that TensorBoard reads, by epoch, and its texts."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (_,) = (folder / "tensorboard").glob("events.*")
    events = EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "tensors": 0}).Reload()
    rows: dict[int, dict[str, float]] = {}
    for tag in events.Tags()["scalars"]:
        for event in events.Scalars(tag):
            row = rows.setdefault(event.step, {"epoch": event.step})
            assert tag not in row, f"epoch {event.step} is there twice"
            row[tag] = event.value
    texts = {tag: events.Tensors(tag)[0].tensor_proto.string_val[0].decode() for tag in events.Tags()["tensors"]}
    return [rows[epoch] for epoch in sorted(rows)], texts


def assert_on_tensorboard(folder, texts=("run/text_summary", "result/text_summary")):
    rows, found = tensorboard(folder)
    record = read_metrics(folder)
    assert len(rows) == len(record)
    for ours, theirs in zip(record, rows, strict=True):
        # TensorBoard keeps floats of 32 bits.
        numbers = {"epoch": ours.epoch} | ours.numbers()
        assert {key: np.float32(value) for key, value in numbers.items()} == theirs
    assert found.keys() == set(texts)
    if "result/text_summary" in texts:
        assert json.loads(found["result/text_summary"]) == read_json(folder / "result.json")


def wandb_records(path):
    """What `wandb sync` reads of a file: records of LevelDB's log format, in blocks of 32 KiB, behind 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, pieces = path.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if 2**15 - at % 2**15 < 7:  # no room for a header
            at += 2**15 - at % 2**15
            continue
        length, kind = int.from_bytes(content[at + 4 : at + 6], "little"), content[at + 6]
        pieces += content[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(pieces)
            pieces = b""


def wandb(folder):
    """The one offline run of a folder: what it is, its rows, its summary, and how it ended."""
    (path,) = (folder / "wandb").glob("offline-run-*/run-*.wandb")
    # Its own process may have to write it yet.
    until(lambda: any(record.HasField("exit") for record in wandb_records(path)), "W&B has written the end")
    run, rows, summary, exit_code = None, [], {}, None
    for record in wandb_records(path):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run = run or record.run
        elif kind == "history":
            items = {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            assert items["_step"] == items["epoch"]
            rows.append({key: value for key, value in items.items() if not key.startswith("_")})
        elif kind == "summary":
            updates = record.summary.update
            summary |= {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in updates}
        elif kind == "exit":
            exit_code = record.exit.exit_code
    return run, rows, summary, exit_code


def assert_on_wandb(folder, finished=True):
    _, rows, summary, exit_code = wandb(folder)
    assert rows == [{"epoch": each.epoch, **each.numbers()} for each in read_metrics(folder)]
    assert exit_code == (0 if finished else 1)
    if finished:
        assert read_json(folder / "result.json").items() <= summary.items()


def test_trackers_have_the_record_and_change_nothing_in_it(tiny_run, tmp_path):
    run, heard = tiny_run("recipe", ema=0.9, drop_path=0.5), []
    train(run, tmp_path / "plain")
    train(run, tmp_path / "tracked", heard.append, **BOTH)
    assert_same(tmp_path / "plain", tmp_path / "tracked")
    assert heard == read_metrics(tmp_path / "tracked")
    assert_on_tensorboard(tmp_path / "tracked")
    assert_on_wandb(tmp_path / "tracked")

    told = json.loads(tensorboard(tmp_path / "tracked")[1]["run/text_summary"])
    assert told == read_json(tmp_path / "tracked" / "manifest.json")["run"]
    found, *_ = wandb(tmp_path / "tracked")
    assert (found.project, found.run_id) == ("roadmap", run.identity)
    assert not found.resume  # `wandb sync` puts all of it in place of what it sent before
    assert (found.display_name, found.run_group) == ("pico/recipe-s0", "recipe")
    config = {item.key: json.loads(item.value_json) for item in found.config.update}
    assert config["recipe"]["epochs"] == 2 and config["rung"] == "recipe"
    assert config.keys() >= {"design", "regime", "data", "seed", "fidelity"}

    names = {path.name for path in (tmp_path / "tracked").iterdir()}
    assert names - {path.name for path in (tmp_path / "plain").iterdir()} == {"tensorboard", "wandb"}


@pytest.mark.parametrize("step", [1, 5, 7, 9])  # in the first epoch, at its end, in the second
def test_stopping_anywhere_and_resuming_leaves_each_epoch_once(tiny_run, tmp_path, step):
    run, steps = tiny_run("recipe"), iter(range(1, 100))
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: next(steps) == step, **BOTH)
    assert_on_tensorboard(tmp_path, texts=["run/text_summary"])
    assert_on_wandb(tmp_path, finished=False)
    train(run, tmp_path, **BOTH)
    assert_on_tensorboard(tmp_path)
    assert_on_wandb(tmp_path)


@pytest.mark.parametrize("processes", [1, 2])
def test_a_killed_run_leaves_each_epoch_once(tiny_run, tmp_path, processes):
    """Killed where a row is on the disk and its checkpoint is not: that epoch is trained and reported again."""
    run, how = tiny_run("recipe", epochs=3), execution(**BOTH)
    assert not end(start_processes(run, tmp_path, how, processes, Death("write", 11)))
    before = read_metrics(tmp_path)
    assert checkpoint.load(tmp_path, run.identity)["epoch"] == len(before) - 1 == 1
    assert end(start_processes(run, tmp_path, how, processes))
    assert_on_tensorboard(tmp_path)
    assert_on_wandb(tmp_path)


def test_a_tracker_that_is_requested_later_gets_a_finished_run(tiny_run, tmp_path):
    run = tiny_run("recipe", epochs=1)
    result = train(run, tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    assert missing_trackers(tmp_path, execution(**BOTH)) == ["tensorboard", "wandb"]
    assert train(run, tmp_path, **BOTH) == result
    assert_on_tensorboard(tmp_path)
    assert_on_wandb(tmp_path)
    assert not missing_trackers(tmp_path, execution(**BOTH))
    assert missing_trackers(tmp_path, execution(**BOTH | {"wandb": "another"})) == ["wandb"]
    written = [path for path in tmp_path.rglob("*") if "logs" not in path.parts]  # W&B's own are written late
    times = [path.stat().st_mtime_ns for path in written]
    train(run, tmp_path, **BOTH)
    assert times == [path.stat().st_mtime_ns for path in written]  # they have all of it
    assert before == {path: path.read_bytes() for path in tmp_path.iterdir() if path.is_file()}


def train_as_job(run, folder, how, told, breaks=False):
    """As a launcher does it; `breaks` kills, in the first epoch, W&B's own process, which all goes through."""

    def report(event):
        if isinstance(event, Warned):
            told.put(event.message)
        elif isinstance(event, EpochDone) and event.metrics.epoch == 1 and breaks:
            for task in Path("/proc/self/task").iterdir():
                for child in (task / "children").read_text().split():
                    if "wandb" in Path(f"/proc/{child}/cmdline").read_text():
                        os.kill(int(child), signal.SIGKILL)

    ending = train_job(run, folder, how, 1, SINGLE_PROCESS, report, lambda: Request.NONE)
    assert isinstance(ending, Finished), ending


def messages(*arguments):
    """The warnings of a run that is trained in a new process."""
    warm_fork_server()
    told = FORKSERVER.SimpleQueue()
    process = FORKSERVER.Process(target=train_as_job, args=(*arguments[:3], told, *arguments[3:]))
    process.start()
    process.join()
    assert process.exitcode == 0
    found = []
    while not told.empty():
        found.append(told.get())
    return found


def test_a_tracker_that_can_not_be_created_is_reported_once(tiny_run, tmp_path):
    run, how = tiny_run("recipe"), execution(**BOTH)
    train(run, tmp_path / "plain")
    folder = tmp_path / "tracked"
    folder.mkdir()
    (folder / "tensorboard").write_text("a file in its place")
    (told,) = messages(run, folder, how)
    assert told.startswith("tensorboard failed and is not updated until the run is started again; training continues: ")
    assert (folder / "log.txt").read_text().count(told) == 1
    assert_same(tmp_path / "plain", folder)
    assert_on_wandb(folder)  # the other is none the worse
    (folder / "tensorboard").unlink()
    assert messages(run, folder, how) == []
    assert_on_tensorboard(folder)


def test_a_tracker_that_fails_is_reported_once(tiny_run, tmp_path):
    run, how = tiny_run("recipe", epochs=3), execution(**BOTH)
    train(run, tmp_path / "plain")
    folder = tmp_path / "tracked"
    (told,) = messages(run, folder, how, True)
    assert told.startswith("wandb failed and is not updated until the run is started again; training continues: ")
    assert (folder / "log.txt").read_text().count(told) == 1
    assert_same(tmp_path / "plain", folder)
    assert_on_tensorboard(folder)
    assert missing_trackers(folder, how) == ["wandb"]
    assert messages(run, folder, how) == []
    assert_on_wandb(folder)


@pytest.mark.slow
def test_a_server_that_is_not_there_costs_a_warning(tiny_run, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    monkeypatch.setattr("runner.train.trackers.SERVER_SECONDS", 1)
    told = []
    train_job(
        tiny_run("recipe", epochs=1),
        tmp_path,
        execution(wandb="roadmap"),
        1,
        SINGLE_PROCESS,
        lambda event: told.append(event.message) if isinstance(event, Warned) else None,
        lambda: Request.NONE,
    )
    assert len(told) == 1 and "wandb failed and is not updated" in told[0] and (tmp_path / "result.json").exists()


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_missing_package_is_reported_before_anything_is_trained(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, name, None)
    option = ["--tensorboard"] if name == "tensorboard" else ["--wandb", "roadmap"]
    assert main(["run", "--seeds", "1", *QUICK, *option]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and f"pip install 'roadmap-convnext[{name}]'" in told
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("project", ["", "team/project"])
def test_a_project_that_can_not_be_is_refused(tmp_path, monkeypatch, capsys, project):
    monkeypatch.chdir(tmp_path)
    assert main(["run", "--seeds", "1", *QUICK, "--wandb", project]) == 2
    error = capsys.readouterr().err
    assert "wandb must be a project's name" in error and f"(got {project!r})" in error


def test_the_command_copies_new_runs_and_finished_ones_to_trackers(tmp_path):
    def roadmap(*arguments):
        done = run_here("run", "--seeds", "1", *QUICK, *arguments, cwd=tmp_path)
        assert (done.status, done.err) == (0, "")
        (folder,) = (tmp_path / "runs" / "pico").iterdir()
        return done.out, folder

    _, folder = roadmap("--tensorboard")
    assert_on_tensorboard(folder)
    assert not (folder / "wandb").exists()
    record = {path.name: path.read_bytes() for path in folder.glob("*.json*")}
    told, _ = roadmap("--tensorboard", "--wandb", "2024")
    assert "1 run, 1 finished already, 1 to copy to trackers; nothing to train" in told
    assert_on_wandb(folder)
    assert wandb(folder)[0].project == "2024"
    assert record == {path.name: path.read_bytes() for path in folder.glob("*.json*")}
    told, _ = roadmap("--tensorboard", "--wandb", "2024")
    assert "1 run, 1 finished already; nothing to train" in told


def test_neither_package_is_needed_where_it_is_not_asked_for(tiny_run, tmp_path):
    code = """
import sys
sys.modules |= {"tensorboard": None, "wandb": None}
from pathlib import Path
from roadmap.files import read_json
from roadmap.record.folder import read_run
from runner.train.engine import train
from tests.helpers.training import execution
run = read_run(read_json(Path(sys.argv[1]) / "manifest.json"), Path(sys.argv[1]))
train(run, Path(sys.argv[2]), execution())
"""
    train(tiny_run("recipe", epochs=1), tmp_path / "run")
    subprocess.run([sys.executable, "-c", code, tmp_path / "run", tmp_path / "again"], cwd=ROOT, check=True)
    assert not {"tensorboard", "wandb"} & {path.name for path in (tmp_path / "again").iterdir()}
