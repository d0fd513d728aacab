"""A run in training: its state, its epochs and steps, and its checkpoints."""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roadmap.files import write_json
from roadmap.record.events import EpochDone, Report, StepDone, ignore
from roadmap.record.folder import (
    append_metrics,
    keep_metrics,
    read_metrics,
    sync_metrics,
)
from roadmap.record.metrics import AVERAGED
from roadmap.record.outcomes import write_outcomes
from roadmap.record.predictions import write_predictions
from roadmap.record.results import Divergence, EpochMetrics, RunResult, scalar
from roadmap.record.run import Run
from roadmap.record.sessions import PositionFile, TrainingPosition, append_session, read_position, read_sessions
from roadmap.study.execution import Execution
from runner.data.datasets import load_data
from runner.machine.agreement import Agreement
from runner.machine.distributed import RendezvousError, World
from runner.machine.randomness import seed_for, seed_globally
from runner.machine.requests import Request
from runner.machine.setup import Setup
from runner.train import checkpoint
from runner.train.initial_weights import Initial
from runner.train.nonfinite import first_not_finite, not_finite_weight
from runner.train.optimizer import learning_rate, load_optimizer
from runner.train.provenance import peak_memory, session
from runner.train.tasks.registry import task_of
from runner.train.tasks.task import Scores
from runner.train.trackers import tracked
from runner.train.train_state import TrainState

PEER_SECONDS = 10.0  # to wait for a batch after a request to stop, with several processes


class Stopped(Exception):
    """The run was asked to stop. Its state is saved."""


class Paused(Exception):
    """The run was trained for the epochs of `execution.stop_after`. Its state is saved."""

    def __init__(self, epochs: int) -> None:
        super().__init__(epochs)
        self.epochs = epochs


class NotFinite(Exception):
    """The loss or a weight is not finite."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class Training:
    """A run in training: the state that a checkpoint stores, and what is derived from the run."""

    def __init__(
        self,
        run: Run,
        folder: Path,
        execution: Execution,
        setup: Setup,
        world: World,
        divergences: Sequence[Divergence],
        report: Report,
        request: Callable[[], Request],
        initial: Initial | None = None,
    ) -> None:
        self.run, self.folder, self.execution, self.setup, self.world = run, folder, execution, setup, world
        self.divergences, self.report, self.request = divergences, report if world.rank == 0 else ignore, request
        self.recipe = run.experiment.recipe
        train_split, test_split = load_data(run, execution.data_path)
        skip_bad = execution.bad_images == "skip"
        retries = [divergence.retried_from for divergence in divergences if divergence.retried_from]
        self.task = task_of(run)
        waiting = self._while_waiting
        self.batches = self.task.training_batches(train_split, setup, world.rank, retries, skip_bad, waiting)
        self.test_batches = self.task.test_batches(test_split, setup, world.rank, skip_bad, waiting)
        self.train_state = train_state = TrainState(run, setup, world, initial.weights if initial else None)
        self.model, self.ema = train_state.model, train_state.ema
        self.optimizer, self.scaler = train_state.optimizer, train_state.scaler
        self.agreement = Agreement(world, setup.device)
        self.epoch = self.step = 0  # the next ones to train
        self.loss_sum = 0.0  # over the epoch's steps so far
        self.skipped = 0  # images of the epoch so far that could not be read
        self.seconds = 0.0  # spent in the epoch so far
        self.position_file: PositionFile | None = None  # of rank 0, while it trains
        self.pending = Request.NONE  # made while a batch was awaited
        self.saved_at = self.began = time.perf_counter()
        self.save_seconds = 0.0  # that the last checkpoint took

    def train(self) -> RunResult | None:
        """Trains from the current state to the end; returns the result on rank 0."""
        self._check_agreement()
        with contextlib.ExitStack() as stack:
            if self.world.rank == 0:
                self.position_file = stack.enter_context(contextlib.closing(PositionFile(self.folder)))
                self.position_file.write(TrainingPosition(self.epoch, self.step, self.batches.steps))
                self.report = stack.enter_context(tracked(self.run, self.folder, self.execution, self.report))
            if self.setup.compile is not None:
                self._compile()
            # Closed here, so that its workers end before this process.
            self.stream = stack.enter_context(contextlib.closing(self.batches.stream(self.epoch, self.step)))
            while self.epoch < self.recipe.epochs:
                if self._is_due_to_pause():
                    raise Paused(self.epoch)
                self._train_epoch()
            if self.world.rank != 0:
                return None
            result = self._result()
            write_json(self.folder / "result.json", result.to_row())  # before the trackers close: they copy it
            return result

    def _compile(self) -> None:
        """Before the first step, whose batch it computes on."""
        if self.epoch < self.recipe.epochs:
            with contextlib.closing(self.batches.stream(self.epoch, min(self.step, self.batches.steps - 1))) as stream:
                self.train_state.compile(*next(stream))
            self.batches.bad.count = 0

    def record_session(self) -> None:
        """Records this start of training, and the steps after it that an earlier session had trained and lost."""
        position, previous = TrainingPosition(self.epoch, self.step, self.batches.steps), read_position(self.folder)
        lost_steps = max(0, previous.total - position.total) if previous else 0
        append_session(self.folder, session(self.epoch, self.step, lost_steps))

    def restore(self) -> None:
        """Loads the newest checkpoint of the folder, if there is one."""
        saved = checkpoint.load(self.folder, self.run.identity)
        if saved:
            try:
                self._load_state(saved)
            except (RuntimeError, ValueError, KeyError) as error:
                reason = str(error).splitlines()[0]
                raise ValueError(
                    f"{self.folder}: the checkpoint is of another network ({reason}); move the folder away"
                ) from None
            print(f"resuming from epoch {self.epoch + 1}, step {self.step}")
        # Only now the optimizer has its form. At most one step: the updates of later ones would not be called off.
        self.agreement.late = self.setup.late if self.train_state.skips_updates else 0
        if self.world.rank == 0:
            keep_metrics(self.folder, self.epoch)

    def _load_state(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        load_optimizer(self.optimizer, saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.loss_sum, self.skipped, self.seconds = saved["loss_sum"], saved["skipped"], saved["seconds"]

    def _check_agreement(self) -> None:
        """Raises RendezvousError unless all processes have read the same state from the disk."""
        own_state = (self.run.identity, self.setup, self.batches.retries, self.epoch, self.step)
        states = self.world.all_gather(own_state)
        for rank, other in enumerate(states):
            if other != states[0]:
                raise RendezvousError(f"{self.folder}: rank {rank} read {other}, rank 0 {states[0]}; start them again")

    def _check_weights(self) -> None:
        """Makes sure that no checkpoint has weights that are not finite."""
        # Running statistics differ between processes.
        name = self.world.first_not_none(not_finite_weight(self.model))
        if name:
            raise NotFinite(self._divergence(self.step, self.loss_sum / self.step, name))

    def _save(self) -> None:
        self.saved_at = time.perf_counter()
        if self.world.rank != 0:
            return
        sync_metrics(self.folder)
        checkpoint.save(
            self.folder,
            {
                "format": checkpoint.FORMAT,
                "identity": self.run.identity,
                "model": _contiguous(self.model.state_dict()),
                "optimizer": self.optimizer.state_dict(),
                "scaler": self.scaler.state_dict(),
                "ema": self.ema.state_dict() if self.ema else None,
                "epoch": self.epoch,
                "step": self.step,
                "loss_sum": self.loss_sum,
                "skipped": self.skipped,
                "seconds": self.seconds + self.saved_at - self.began,
            },
        )
        self.save_seconds = time.perf_counter() - self.saved_at

    def _train_epoch(self) -> None:
        """Trains the rest of an epoch, evaluates, and writes metrics and checkpoint."""
        self.began, first_step = time.perf_counter(), self.step
        self.model.train()
        while self.step < self.batches.steps:
            self._handle_request(self._train_step())
        self._handle_request(self._hear(late=0))
        self._check_weights()
        train_seconds = time.perf_counter() - self.began
        images = (self.step - first_step) * self.recipe.batch_size
        is_last = self.epoch + 1 == self.recipe.epochs
        scores = {"": self._evaluate(self.model, last=is_last)}
        if self.ema:
            scores[AVERAGED] = self._evaluate(self.ema.module, last=is_last)
        values = {f"{prefix}{key}": value for prefix, own in scores.items() for key, value in own.values.items()}
        if not is_last:  # a list of a thousand classes is stored once per run
            values = {key: scalar(value) for key, value in values.items()}
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=self.loss_sum / self.batches.steps,
            values=values,
            skipped_images=self.skipped + scores[""].skipped_images,
            learning_rate=self.rate,
            images_per_second=images / train_seconds if images else None,
            peak_memory_bytes=peak_memory(self.setup.device),
            seconds=self.seconds + time.perf_counter() - self.began,
        )
        self._log_skipped()
        if self.world.rank == 0:
            append_metrics(self.folder, metrics)
            if is_last and scores[""].outcomes:
                write_outcomes(self.folder, {prefix: own.outcomes for prefix, own in scores.items() if own.outcomes})
            if is_last and scores[""].predictions:
                write_predictions(self.folder, list(scores[""].predictions))
        self.epoch, self.step, self.loss_sum, self.skipped, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0
        self.began = time.perf_counter()
        if self.epoch == self.recipe.epochs or self._is_due_to_pause() or self._should_save():
            self._save()
        self.report(EpochDone(metrics))

    def _is_due_to_pause(self) -> bool:
        return self.execution.stop_after is not None and self.epoch >= self.execution.stop_after

    def _should_save(self) -> bool:
        """Whether a checkpoint that takes as long as the last stays within its share of the time since then.

        Only rank 0's answer matters: it alone writes. With `on_nan: retry` every epoch is saved, because a retry
        changes the epochs after the checkpoint, and W&B can't replace an epoch.
        """
        share = self.execution.checkpoint_share * (self.began - self.saved_at)
        return self.execution.on_nan == "retry" or self.save_seconds <= share

    def _log_skipped(self) -> None:
        """Prints the unreadable images of all processes to the log."""
        own_messages = [*self.batches.bad.unreported(), *self.test_batches.bad.unreported()]
        for message in dict.fromkeys(itertools.chain(*self.world.all_gather(own_messages))):
            print(f"skipped: {message}")

    def _train_step(self) -> Request:
        """One step on the global batch; returns the request that is known by now."""
        self._set_rate()
        self.optimizer.zero_grad()
        losses = [self._backward(next(self.stream), part) for part in range(self.setup.accumulation)]
        loss = self._say(self.step + 1, torch.stack(losses).mean())
        request = self._hear()
        self.train_state.update(unless_infinite=loss if self.agreement.late else None)
        self.step += 1
        if self.position_file:
            self.position_file.write(TrainingPosition(self.epoch, self.step, self.batches.steps))
        return request

    def _set_rate(self) -> None:
        """The learning rate of the next step."""
        progress = (self.epoch + self.step / self.batches.steps) / self.recipe.epochs
        rate = learning_rate(self.recipe, progress, self.batches.steps)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group.get("scale", 1.0)  # the scale: of layer decay

    @property
    def rate(self) -> float:
        """The learning rate of the last step, also of a resumed run; that of the head if layers have their own."""
        group = max(self.optimizer.param_groups, key=lambda group: group.get("scale", 1.0))
        return float(group["lr"] / group.get("scale", 1.0))

    def _backward(self, batch: tuple[Tensor, Any], part: int) -> Tensor:
        """Adds the gradients of a part of the batch; returns its loss."""
        self._seed_part(part)
        return self.train_state.backward(*batch, parts=self.setup.accumulation, part=part)

    def _seed_part(self, part: int) -> None:
        """Makes the network's random numbers, as for drop path, depend only on the run's seed and the position."""
        seed_globally(seed_for(self.run.seed, "step", self.epoch, self.step, self.world.rank, part))

    def _say(self, step: int | None, loss: Tensor) -> Tensor:
        """Tells all processes what this one has, and returns the loss of all; `step` is None outside training steps."""
        skipped, self.batches.bad.count = self.batches.bad.count, 0
        due = time.perf_counter() - self.saved_at >= self.execution.checkpoint_minutes * 60
        due_request = Request.SAVE if due and self.step < self.batches.steps else Request.NONE
        request, self.pending = max(self.request(), self.pending, due_request), Request.NONE
        return self.agreement.say(step, loss, skipped, request)

    def _hear(self, late: int | None = None) -> Request:
        """Takes note of what all processes agree on by now; returns the highest request."""
        request = Request.NONE
        for agreed in self.agreement.hear(late):
            if not math.isfinite(agreed.loss):
                self.step = (agreed.step or 1) - 1  # the weights are still those before that step
                self._set_rate()
                raise NotFinite(self._divergence(self.step + 1, agreed.loss, self._first_not_finite()))
            self.loss_sum += agreed.loss
            self.skipped += agreed.skipped
            request = max(request, agreed.request)
            if agreed.step is not None:
                self.report(StepDone(self.epoch + 1, agreed.step, self.batches.steps, agreed.loss))
        return request

    def _while_waiting(self, seconds: float) -> None:
        """Saves the state and stops if that is requested while a batch is awaited, which may never come.

        With several processes only after a while: the others learn of a request after the step, and fail without it.
        """
        self.pending = max(self.pending, self.request())
        if self.pending is not Request.STOP or (self.world.size > 1 and seconds < PEER_SECONDS):
            return
        if self.world.size == 1:
            self._handle_request(Request.STOP)
        self._hear(late=0)
        if not_finite_weight(self.model) is None:
            self._save()
        raise Stopped(f"stopped in epoch {self.epoch + 1}, step {self.step}, while waiting for images")

    def _handle_request(self, request: Request) -> None:
        if request is not Request.NONE:
            request = max(request, self._hear(late=0))
            self._check_weights()
            self._save()
            print(f"saved in epoch {self.epoch + 1}, step {self.step}")
        if request is Request.STOP:
            raise Stopped(f"stopped in epoch {self.epoch + 1}, step {self.step}")

    def _evaluate(self, model: nn.Module, *, last: bool) -> Scores:
        no_loss = torch.zeros((), device=self.setup.device)

        def between() -> None:
            self._say(None, no_loss)
            self._handle_request(self._hear())

        scores = self.task.evaluate(model, self.test_batches, self.setup, self.world, between, last=last)
        self._handle_request(self._hear(late=0))
        return scores

    def _divergence(self, step: int, loss: float, module: str) -> Divergence:
        return Divergence(self.epoch + 1, step, self.rate, f"{loss:g}", module)

    def _first_not_finite(self) -> str:
        """The first module whose output is not finite in the current step, which is computed again with hooks."""
        names: list[str | None] = []
        with contextlib.closing(self.batches.stream(self.epoch, self.step)) as stream:
            for part in range(self.setup.accumulation):
                images, targets = next(stream)
                names.append(None if torch.isfinite(images).all() else "the images")
                self._seed_part(part)
                with self.setup.autocast():  # all parts on all processes: some modules wait for other processes
                    compute = functools.partial(self.task.forward, self.model, images, targets)
                    names.append(first_not_finite(self.model, compute))
        own_name = next((name for name in names if name), None)
        return self.world.first_not_none(own_name) or "the loss itself"

    def _result(self) -> RunResult:
        """The final metrics, and what the training took."""
        epochs = read_metrics(self.folder)
        model_cost = self.task.cost()
        sessions = read_sessions(self.folder)
        return replace(
            RunResult.of_epochs(self.run.identity, epochs),
            parameters=model_cost.parameters,
            macs=model_cost.macs,
            epochs=len(epochs),
            skipped_images=sum(epoch.skipped_images or 0 for epoch in epochs),
            divergences=tuple(self.divergences),
            restarts=len(sessions) - 1,
            lost_steps=sum(session.lost_steps for session in sessions),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _contiguous(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous copies, for readers of the weights: training may use channels_last."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
