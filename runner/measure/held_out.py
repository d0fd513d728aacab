"""Evaluating a network in this process, as its task does after the last epoch."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.data.datasets import load_data
from runner.data.shared_memory import check_shared_memory
from runner.machine.distributed import SINGLE_PROCESS
from runner.machine.resources import available_cores
from runner.machine.setup import choose_setup
from runner.train.tasks.registry import task_of
from runner.train.tasks.task import Scores


def evaluate_in_process(
    run: Run,
    network: nn.Module,
    execution: Execution,
    report: Callable[[int, int], None],
    held_out: Any = None,
) -> Scores:
    """Evaluates a network in this process, on a run's held-out images or on other ones (`held_out`).

    `report` gets the number of images done, and of all.
    """
    setup = choose_setup(run.experiment.recipe, execution, 1, available_cores())
    setup.prepare()
    check_shared_memory(run.experiment.recipe, setup.accumulation, setup.workers, prefetch=setup.prefetch)
    if held_out is None:
        _, held_out = load_data(run, execution.data_path)
    task, total = task_of(run), len(held_out)
    batches = task.test_batches(held_out, setup, 0, execution.bad_images == "skip", lambda seconds: None)
    rounds_done = itertools.count()

    def between() -> None:
        report(total * next(rounds_done) // batches.rounds, total)

    network = network.to(torch.device(setup.device)).to(memory_format=setup.memory_format)
    scores = task.evaluate(network, batches, setup, SINGLE_PROCESS, between, last=True)
    report(total, total)
    return scores
