"""The command as processes: Ctrl-C, signals and kills at any moment, pipes and terminals."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import threading
from pathlib import Path

import pytest

from roadmap.record.folder import read_metrics
from tests.helpers import ROOT
from tests.helpers.command import LIGHT, run_apart, run_here, start_apart
from tests.helpers.once import once
from tests.helpers.training import outcome
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow

QUICK = ["--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0", "--set", "recipe.batch_size=256"]
QUICK += LIGHT
LONG = [
    "run",
    "--seeds",
    "1",
    "--steps",
    "recipe,layer-norm",
    "--set",
    "recipe.epochs=15",
    *LIGHT,
]  # some seconds of training
ENDLESS = ["run", "--seeds", "1", "--steps", "recipe,layer-norm", "--set", "recipe.epochs=2000", *LIGHT]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def logs() -> str:
    return "".join(path.read_text() for path in Path().rglob("log.txt"))


def wait_for(process: subprocess.Popen[str], holds, what: str):
    """Waits for a condition, and fails if the process ends first."""

    def checked():
        found = holds()
        assert found or process.poll() is None, f"it has ended before: {what}"
        return found

    return until(checked, what, every=0.02)


def wait_for_epoch(process: subprocess.Popen[str]) -> None:
    """Waits until a run has finished an epoch, so that there is something to lose."""
    wait_for(process, lambda: any(read_metrics(run) for run in Path().glob("runs/pico/*")), "an epoch is trained")


def test_designs_are_answered_without_torch():
    code = "import sys, roadmap.cli as cli\nfor command in sys.argv[1:]:\n    assert cli.main(command.split()) == 0"
    code += "\n    assert 'torch' not in sys.modules, command"
    commands = ["list", "show gelu", "diff recipe gelu", "cost", "run --dry-run"]
    subprocess.run([sys.executable, "-c", code, *commands], capture_output=True, check=True)


def test_a_closed_pipe_is_no_error():
    process = start_apart("list")
    process.stdout.close()
    assert process.stderr.read() == ""
    process.stderr.close()
    assert process.wait() == 0


def test_an_output_that_lacks_a_character_or_is_closed_is_no_error():
    done = run_apart("list", env={"PYTHONIOENCODING": "latin-1"})
    assert done.status == 0 and "layer-scale" in done.out
    closed = subprocess.run(["sh", "-c", f"{sys.executable} -m roadmap list >&-"], capture_output=True, check=False)
    assert closed.returncode == 0 and closed.stderr == b""


# Sends Ctrl-C to its own process as a module is imported.
INTERRUPTING = """
import os, signal, sys

class Finder:
    def find_spec(name, path=None, target=None):
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(Finder)
            # Within exec, as dataclasses are made: Python itself takes note of it there.
            exec("os.kill(os.getpid(), signal.SIGINT)\\nfor _ in range(100): pass")

sys.meta_path.insert(0, Finder)
"""


@pytest.mark.parametrize(
    "module",
    ["roadmap.cli", "roadmap.study.schema", "roadmap.cli.runs", "runner.launch.local", "roadmap.progress"],
)
def test_ctrl_c_while_it_is_imported_is_clean(tmp_path, module):
    (tmp_path / "sitecustomize.py").write_text(INTERRUPTING)
    done = run_apart(*LONG, env={"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "INTERRUPT_AT": module})
    assert done.status == 130
    assert "Traceback" not in done.out + done.err and len(done.err.strip().splitlines()) <= 1


def test_a_long_path_of_temporary_files_is_no_obstacle(tmp_path):
    """The sockets between processes have a limit of about a hundred bytes, those of data workers too."""
    temporary = tmp_path / ("t" * 100)
    temporary.mkdir()
    done = run_apart("run", "--seeds", "1", "--steps", "gelu", *QUICK, "--workers", "1", env={"TMPDIR": str(temporary)})
    assert done, done.err


def test_before_ctrl_c_is_handled_next_to_nothing_is_imported():
    """What takes time there ends with a traceback, or by the raw signal."""
    code = "import sys; before = set(sys.modules); import roadmap.__main__; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    imported = {name.partition(".")[0] for name in done.stdout.split()}
    assert imported <= {"roadmap", "importlib", "__future__", "warnings"}  # those of importlib are in Python itself


def test_a_closed_terminal_saves_and_stops_the_runs(tmp_path):
    """As in a terminal's window, whose shell is gone too: the command leads the session."""
    terminal, output = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(output, termios.TIOCSCTTY, 0)

    process = start_apart(*ENDLESS, stdin=output, stdout=output, stderr=output, preexec_fn=take_terminal)
    os.close(output)
    closing = threading.Event()
    screen = threading.Thread(target=shown, args=(terminal, closing))
    screen.start()
    wait_for(process, lambda: "epoch 1:" in logs(), "an epoch is trained")
    closing.set()
    screen.join()
    assert process.wait(timeout=300) == 128 + signal.SIGHUP
    assert "stopped in epoch" in logs() and list(tmp_path.rglob("checkpoint.pt"))


def shown(terminal, closing):
    """Reads what is written to a terminal, until it is closed."""
    while not closing.is_set():
        if select.select([terminal], [], [], 0.1)[0]:
            os.read(terminal, 4096)
    os.close(terminal)


def test_a_hangup_is_ignored_under_nohup():
    process = start_apart(*ENDLESS, preexec_fn=ignore_hangup)
    wait_for(process, lambda: "epoch 1:" in logs(), "an epoch is trained")
    os.killpg(process.pid, signal.SIGHUP)
    epochs = logs().count("epoch ")
    wait_for(process, lambda: logs().count("epoch ") > epochs, "it goes on")
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM and "stopped in epoch" in logs(), errors


LATE = """import os
kill = os.kill
def late(process, number):
    kill(process, number)
    raise ProcessLookupError(3, "No such process")
os.kill = late
"""


def test_a_run_that_ends_by_itself_while_all_are_stopped_is_no_error(tmp_path):
    """Between the look whether it is alive and the signal. Stopping goes on with the others."""
    (tmp_path / "sitecustomize.py").write_text(LATE)
    process = start_apart(*ENDLESS, env=os.environ | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"})
    wait_for(process, lambda: logs().count("epoch 1:") == 2, "both are in training")
    process.terminate()
    _, errors = process.communicate(timeout=300)
    assert process.returncode == 128 + signal.SIGTERM, errors
    assert logs().count("stopped in epoch") == 2


def ignore_hangup():
    os.setsid()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@pytest.mark.parametrize("moment", ["fork server", "run"])
def test_ctrl_c_while_it_starts_runs_is_clean(moment):
    process = start_apart(*ENDLESS, start_new_session=True)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")

    def is_serving():
        # The second to come: the first keeps count of what is shared.
        return len(children.read_text().split()) == 2

    holds = {"fork server": is_serving, "run": lambda: list(Path().rglob("log.txt"))}[moment]
    wait_for(process, holds, moment)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Traceback" not in out + errors and len(errors.strip().splitlines()) <= 1


def test_two_commands_at_once_share_the_work(tmp_path):
    arguments = ["run", "--seeds", "1", "--steps", "recipe,gelu", *QUICK, "--set", "recipe.epochs=6"]
    processes = [start_apart(*arguments) for _ in range(2)]
    outputs = [process.communicate(timeout=900) for process in processes]
    codes = [process.returncode for process in processes]
    assert 0 in codes and set(codes) <= {0, 1}, outputs  # who leaves runs to the other has not finished the study
    assert 1 not in codes or "in training by another process" in str(outputs)
    assert "Traceback" not in str(outputs)
    assert len(list(tmp_path.rglob("result.json"))) == 2
    for log in tmp_path.rglob("log.txt"):
        assert "Traceback" not in log.read_text() and log.read_text().count("epoch 6:") == 1


def test_the_death_of_the_launcher_stops_its_runs_with_their_state_saved(tmp_path):
    process = start_apart(*ENDLESS, start_new_session=True)
    wait_for_epoch(process)
    process.kill()  # the launcher alone
    process.communicate()
    until(lambda: all("stopped in epoch" in log.read_text() for log in tmp_path.rglob("log.txt")), "its runs stop")


@pytest.fixture(scope="module")
def undisturbed():
    """What LONG comes to, by the names of the runs' folders."""

    def fill(folder):
        done = run_here(*LONG, cwd=folder)
        assert done, done.err

    folder = once("undisturbed-study", fill)
    return {run.name: outcome(run) for run in folder.glob("runs/pico/*")}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_an_interrupted_study_resumes_and_ends_as_an_undisturbed_one(undisturbed, tmp_path, number):
    process = start_apart(*LONG, start_new_session=True)
    wait_for_epoch(process)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=300)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number == signal.SIGINT:
        assert len(errors.strip().splitlines()) == 1 and "the same command resumes the others" in errors
    assert not list(tmp_path.rglob("result.json"))

    again = run_here(*LONG)
    assert again.status == 0 and " to resume" in again.out
    runs = list(tmp_path.glob("runs/pico/*"))
    assert len(runs) == 2 and {run.name: outcome(run) for run in runs} == undisturbed
    assert all(len(read_metrics(run)) == 15 for run in runs)


def test_progress_is_live_in_a_terminal():
    leader, follower = pty.openpty()
    command = ["run", "--seeds", "1", "--steps", "recipe", *QUICK]
    process = start_apart(*command, stdout=follower, stderr=follower, env=os.environ | {"TERM": "xterm"})
    os.close(follower)
    shown = b""
    while True:
        try:
            piece = os.read(leader, 4096)
        except OSError:
            break
        if not piece:
            break
        shown += piece
    os.close(leader)
    assert process.wait() == 0
    text = shown.decode()
    assert "\x1b[" in text and "2/2 epochs" in text and "all runs" in text and "top-1" in text and "left" in text


def test_sigusr2_saves_the_state_and_training_continues():
    process = start_apart("run", "--seeds", "1", "--steps", "recipe", *QUICK, "--set", "recipe.epochs=500", stderr=None)
    try:
        wait_for(process, lambda: "epoch 1:" in logs(), "an epoch is trained")
        process.send_signal(signal.SIGUSR2)
        wait_for(process, lambda: "saved in epoch" in logs(), "the state is saved")
        epochs = logs().count("top-1")
        wait_for(process, lambda: logs().count("top-1") >= epochs + 2, "training goes on")
    finally:
        process.terminate()
        process.communicate()
    assert "stopped in epoch" in logs()


@pytest.mark.parametrize(("workers", "saves_first"), [("0", True), ("2", True), ("2", False)])
def test_a_signal_to_all_processes_at_once_stops_with_the_state_saved(workers, saves_first):
    """As Slurm, a terminal and `timeout` send it: who serves a run is to outlive its step in flight."""
    command = ["run", "--seeds", "1", "--steps", "recipe", *QUICK, "--set", "recipe.epochs=500", "--workers", workers]
    process = start_apart(*command, start_new_session=True, stderr=subprocess.STDOUT)
    wait_for(process, lambda: "epoch 1:" in logs(), "an epoch is trained")
    if saves_first:
        os.killpg(process.pid, signal.SIGUSR2)
        wait_for(process, lambda: "saved in epoch" in logs(), "the state is saved")
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 143 and "stopped: 0 of 1 runs finished" in output
    assert "stopped in epoch" in logs() and "Traceback" not in logs() + output and "resource_tracker" not in output


SLOW_STEP = """
import pathlib, signal, time

import roadmap
import torch

@roadmap.model("slow")
class Slow(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.head = torch.nn.Linear(3 * 32 * 32, num_classes)

    def forward(self, images):
        if self.training and torch.is_grad_enabled():
            heard = signal.getsignal(signal.SIGTERM)
            signal.signal(signal.SIGTERM, lambda *which: (print("asked", file=open("asked", "a")), heard(*which)))
            pathlib.Path("in-a-step").touch()
            time.sleep(3600)
        return self.head(images.flatten(1))
"""


def test_a_second_ctrl_c_does_not_wait_for_the_step(tmp_path):
    """The first waits for the step in flight, here of an hour; the second does not."""
    (tmp_path / "slow.py").write_text(SLOW_STEP)
    chosen = ["--steps", "pico", "--references", "slow", "--plugin", "slow.py", "--set", "recipe.epochs=5"]
    process = start_apart("run", "--seeds", "1", *chosen, "--set", "recipe.warmup_epochs=0", stderr=subprocess.STDOUT)
    wait_for(process, (tmp_path / "in-a-step").exists, "a step is in flight")
    process.send_signal(signal.SIGINT)
    asked = tmp_path / "asked"
    # Again and again, so it waits for the step.
    wait_for(process, lambda: asked.exists() and asked.read_text().count("asked") > 1, "the run is asked to stop twice")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=300)
    assert process.returncode == 130
