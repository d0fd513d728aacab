"""Training one run, from its manifest to its result."""

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

from roadmap.files import read_json, write_json
from roadmap.network.cost import cost
from roadmap.record.events import EpochDone, Report, StepDone, ignore
from roadmap.record.folder import (
    append_metrics,
    is_diverged,
    keep_metrics,
    read_divergences,
    read_metrics,
    read_result,
    state,
    sync_metrics,
    write_divergences,
    write_manifest,
)
from roadmap.record.metrics import AVERAGED
from roadmap.record.results import Divergence, EpochMetrics, RunResult, scalar
from roadmap.record.run import Run
from roadmap.record.sessions import PlaceFile, TrainingPosition, append_session, read_place, read_sessions
from roadmap.serialization import from_data
from roadmap.study.execution import MOST_RETRIES, Execution, began_with
from runner.data.batches import EvaluationBatches, TrainingBatches
from runner.data.datasets import check_trainable, class_names, load_data
from runner.machine.distributed import SINGLE_PROCESS, RendezvousError, World
from runner.machine.randomness import seed_for, seed_globally
from runner.machine.requests import Request
from runner.machine.setup import Setup, choose_setup
from runner.train import checkpoint
from runner.train.evaluation import Scores, empty_sums, evaluate
from runner.train.nonfinite import first_not_finite, not_finite_weight
from runner.train.optimizer import learning_rate, load_optimizer
from runner.train.provenance import environment, peak_memory, session
from runner.train.trackers import mirror_finished, mirrored
from runner.train.train_state import TrainState


class Stopped(Exception):
    """The run was asked to stop; its state is on the disk."""


class Diverged(ValueError):
    """The loss is no finite number any more."""


def _stored(folder: Path, manifest: dict[str, Any], run: Run) -> Setup:
    """The setup that a run began with. Raises ValueError with the file where it is none."""
    try:
        began = began_with(manifest.get("execution"), crops_by_batch=run.crops_by_batch)
        setup: Setup = from_data(Setup, began, "execution")
    except ValueError as error:
        raise ValueError(f"{folder}/manifest.json: {error}") from None
    return setup


def train(
    run: Run,
    folder: Path,
    execution: Execution,
    threads: int = 1,
    world: World = SINGLE_PROCESS,
    report: Report = ignore,
    request: Callable[[], Request] = lambda: Request.NONE,
) -> RunResult | None:
    """Trains a run in its folder, or goes on where it was, and returns its result.

    Called by every process of `world`, which they have joined, and of which only rank 0 writes. Only one training may
    be in a folder: who calls this sees to it. `threads` are each process's where the execution leaves them open.

    Returns nothing on other ranks than 0. Raises Stopped once `request` says so, with the state saved; Diverged at a
    loss that is no finite number, which is recorded; ValueError where the folder belongs to another run, or where
    something asked for can't be had.
    """
    how_far = state(folder, run)
    if world.all_gather(how_far)[0] == "finished":  # by rank 0's word
        if world.rank == 0:
            mirror_finished(run, folder, execution, report)
        return read_result(folder, run)
    check_trainable(run)
    manifest = read_json(folder / "manifest.json") or {}
    stored = _stored(folder, manifest, run) if how_far != "absent" else None
    setup = choose_setup(run.experiment.recipe, execution, world.size, threads, stored)
    setup.prepare()
    print(f"computed on {setup}" + (f", begun on {stored}" if stored not in (None, setup) else ""))
    if how_far == "absent" and world.rank == 0:
        empty_sums(run.dataset.classes)  # a metric of a plug-in fails now, not after the first epoch
        data: dict[str, Any] = {"classes": class_names(run, execution.data_path)}
        data["data_path"] = execution.data_path and str(Path(execution.data_path).expanduser().absolute())
        write_manifest(folder, run, **environment(setup), **data)
    divergences, retrying = read_divergences(folder), False
    while True:
        if is_diverged(divergences):
            _check_retry(execution, divergences)
            divergences = _retry(run, folder, divergences, world)
            print(f"retry from {divergences[-1].retried_from}: {divergences[-1]}")
        try:
            training = Training(run, folder, execution, setup, world, divergences, report, request)
            training.restore()
            if not retrying and world.rank == 0:
                training.record_session()
            return training.train()
        except _NotFinite as error:
            divergences, retrying = (*divergences, error.divergence), True
            if world.rank == 0:
                write_divergences(folder, divergences)


def _check_retry(execution: Execution, divergences: Sequence[Divergence]) -> None:
    if execution.on_nan == "stop":
        raise Diverged(f"{divergences[-1]}")
    if len(divergences) > MOST_RETRIES:
        raise Diverged(f"{divergences[-1]}, after {MOST_RETRIES} retries")


def _retry(run: Run, folder: Path, divergences: Sequence[Divergence], world: World) -> tuple[Divergence, ...]:
    """Has training go on from the last checkpoint, the rest of its epoch in another order; on record before it does."""
    saved = checkpoint.load(folder, run.identity)
    place = (saved["epoch"], saved["step"]) if saved else (0, 0)
    retried = (*divergences[:-1], replace(divergences[-1], retried_from=place))
    if world.rank == 0:
        write_divergences(folder, retried)
    return retried


class _NotFinite(Exception):
    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class Training:
    """The state of a run in training: what a checkpoint holds, and what follows from the run alone."""

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
    ) -> None:
        self.run, self.folder, self.execution, self.setup, self.world = run, folder, execution, setup, world
        self.divergences, self.report, self.request = divergences, report if world.rank == 0 else ignore, request
        self.recipe = run.experiment.recipe
        train_split, test_split = load_data(run, execution.data_path)
        skip_bad = execution.bad_images == "skip"
        retries = [each.retried_from for each in divergences if each.retried_from]
        self.batches = TrainingBatches(run, train_split, setup, world.rank, retries, skip_bad)
        self.test_batches = EvaluationBatches(run, test_split, setup, world.rank, skip_bad)
        self.learner = learner = TrainState(run, setup, world)
        self.model, self.ema = learner.model, learner.ema
        self.optimizer, self.scaler = learner.optimizer, learner.scaler
        self.epoch = self.step = 0  # the next to train
        self.loss_sum = 0.0  # over the epoch's steps so far
        self.skipped = 0  # images of the epoch so far that could not be read
        self.seconds = 0.0  # spent in the epoch so far
        self.place: PlaceFile | None = None  # rank 0's, while it trains
        self.saved_at = self.began = time.perf_counter()
        self.saving = 0.0  # seconds that the last checkpoint took

    def train(self) -> RunResult | None:
        """Trains to the end from where the state is; returns the result on rank 0."""
        self._check_agreement()
        with contextlib.ExitStack() as stack:
            if self.world.rank == 0:
                self.place = stack.enter_context(contextlib.closing(PlaceFile(self.folder)))
                self.place.write(TrainingPosition(self.epoch, self.step, self.batches.steps))
                self.report = stack.enter_context(mirrored(self.run, self.folder, self.execution, self.report))
            # Closed, so that its workers end before this process does.
            self.stream = stack.enter_context(contextlib.closing(self.batches.stream(self.epoch, self.step)))
            while self.epoch < self.recipe.epochs:
                self._train_epoch()
            if self.world.rank != 0:
                return None
            result = self._result()
            write_json(self.folder / "result.json", result.to_row())  # before the mirrors are closed, which copy it
            return result

    def record_session(self) -> None:
        """That training starts here, and what a session before had trained beyond it."""
        here, before = TrainingPosition(self.epoch, self.step, self.batches.steps), read_place(self.folder)
        lost = max(0, before.total - here.total) if before else 0
        append_session(self.folder, session(self.epoch, self.step, lost))

    def restore(self) -> None:
        """Takes up the newest checkpoint of the folder, if there is one."""
        saved = checkpoint.load(self.folder, self.run.identity)
        if saved:
            try:
                self._take_up(saved)
            except (RuntimeError, ValueError, KeyError) as error:
                first = str(error).splitlines()[0]
                raise ValueError(
                    f"{self.folder}: the checkpoint is not of this network ({first}); move the folder away"
                ) from None
            print(f"going on from epoch {self.epoch + 1}, step {self.step}")
        if self.world.rank == 0:
            keep_metrics(self.folder, self.epoch)

    def _take_up(self, saved: dict[str, Any]) -> None:
        self.model.load_state_dict(saved["model"])
        load_optimizer(self.optimizer, saved["optimizer"])
        self.scaler.load_state_dict(saved["scaler"])
        if self.ema:
            self.ema.load_state_dict(saved["ema"])
        self.epoch, self.step = saved["epoch"], saved["step"]
        self.loss_sum, self.skipped, self.seconds = saved["loss_sum"], saved["skipped"], saved["seconds"]

    def _check_agreement(self) -> None:
        """Every process found on its disk what the others found. Raises RendezvousError where they did not."""
        mine = (self.run.identity, self.setup, self.batches.retries, self.epoch, self.step)
        found = self.world.all_gather(mine)
        for rank, other in enumerate(found):
            if other != found[0]:
                raise RendezvousError(f"{self.folder}: rank {rank} found {other}, rank 0 {found[0]}; start them again")

    def _check_weights(self) -> None:
        """A checkpoint never has weights that are not finite."""
        # Running statistics are each process's own.
        broken = self.world.first_not_none(not_finite_weight(self.model))
        if broken:
            raise _NotFinite(self._divergence(self.step, self.loss_sum / self.step, broken))

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
                "model": _in_plain_order(self.model.state_dict()),
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
        self.saving = time.perf_counter() - self.saved_at

    def _train_epoch(self) -> None:
        """Trains what is left of an epoch, evaluates, and writes metrics and checkpoint."""
        self.began, first_step = time.perf_counter(), self.step
        self.model.train()
        while self.step < self.batches.steps:
            self._attend(self._train_step())
        self._check_weights()
        trained = time.perf_counter() - self.began
        images = (self.step - first_step) * self.recipe.batch_size
        raw = self._evaluate(self.model)
        averaged = self._evaluate(self.ema.module).values if self.ema else {}
        values = raw.values | {f"{AVERAGED}{key}": value for key, value in averaged.items()}
        if self.epoch + 1 < self.recipe.epochs:  # lists of a thousand classes are kept once a run
            values = {key: scalar(value) for key, value in values.items()}
        metrics = EpochMetrics(
            epoch=self.epoch + 1,
            train_loss=self.loss_sum / self.batches.steps,
            values=values,
            skipped_images=self.skipped + raw.skipped_images,
            learning_rate=self.optimizer.param_groups[0]["lr"],
            images_per_second=images / trained if images else None,
            peak_memory_bytes=peak_memory(self.setup.device),
            seconds=self.seconds + time.perf_counter() - self.began,
        )
        self._name_skipped()
        if self.world.rank == 0:
            append_metrics(self.folder, metrics)
        self.epoch, self.step, self.loss_sum, self.skipped, self.seconds = self.epoch + 1, 0, 0.0, 0, 0.0
        self.began = time.perf_counter()
        if self.epoch == self.recipe.epochs or self._is_worth_saving():
            self._save()
        self.report(EpochDone(metrics))

    def _is_worth_saving(self) -> bool:
        """Whether a checkpoint like the last would take no more than its share of the time since then.

        Rank 0's word, which no other has to know: it writes alone. Where a divergence is retried each epoch is saved,
        since those after the checkpoint come out otherwise then, and W&B takes no epoch back.
        """
        share = self.execution.checkpoint_share * (self.began - self.saved_at)
        return self.execution.on_nan == "retry" or self.saving <= share

    def _name_skipped(self) -> None:
        """Every process's, in the log."""
        mine = [*self.batches.bad.news(), *self.test_batches.bad.news()]
        for message in dict.fromkeys(itertools.chain(*self.world.all_gather(mine))):
            print(f"skipped: {message}")

    def _train_step(self) -> Request:
        """One step on the global batch; returns what was asked for meanwhile."""
        rate = learning_rate(self.recipe, (self.epoch + self.step / self.batches.steps) / self.recipe.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad()
        losses = [self._backward(next(self.stream), part) for part in range(self.setup.accumulation)]
        loss, skipped, request = self._agree(torch.stack(losses).mean())
        if not math.isfinite(loss):
            raise _NotFinite(self._divergence(self.step + 1, loss, self._first_not_finite()))
        self.learner.update()
        self.step += 1
        if self.place:
            self.place.write(TrainingPosition(self.epoch, self.step, self.batches.steps))
        self.loss_sum += loss
        self.skipped += skipped
        self.report(StepDone(self.epoch + 1, self.step, self.batches.steps, loss))
        return request

    def _backward(self, batch: tuple[Tensor, Tensor], part: int) -> Tensor:
        """Adds a part's gradients; returns its loss."""
        self._seed_part(part)
        return self.learner.backward(*batch, parts=self.setup.accumulation, part=part)

    def _seed_part(self, part: int) -> None:
        """What a network draws, such as the paths to drop, depends on where it is alone."""
        seed_globally(seed_for(self.run.seed, "step", self.epoch, self.step, self.world.rank, part))

    def _agree(self, loss: Tensor) -> tuple[float, int, Request]:
        """What every process learns: the loss over the global batch, images skipped, the strongest request."""
        skipped, self.batches.bad.count = self.batches.bad.count, 0
        due = time.perf_counter() - self.saved_at >= self.execution.checkpoint_minutes * 60
        request = max(self.request(), Request.SAVE if due and self.step < self.batches.steps else Request.NONE)
        if self.world.size == 1:
            return loss.item(), skipped, request
        asked = [float(request == kind) for kind in (Request.SAVE, Request.STOP)]
        mean = loss / self.world.size
        told = self.world.sum(torch.cat((mean.view(1), torch.tensor([float(skipped), *asked]).to(mean))))
        total, skipped_by_all, save, stop = told.tolist()
        return total, round(skipped_by_all), Request.STOP if stop else Request.SAVE if save else Request.NONE

    def _attend(self, request: Request) -> None:
        if request is not Request.NONE:
            self._check_weights()
            self._save()
            print(f"saved in epoch {self.epoch + 1}, step {self.step}")
        if request is Request.STOP:
            raise Stopped(f"stopped in epoch {self.epoch + 1}, step {self.step}")

    def _evaluate(self, model: nn.Module) -> Scores:
        def between() -> None:
            self._attend(self._agree(torch.zeros((), device=self.setup.device))[2])

        return evaluate(model, self.test_batches, self.setup, self.world, between)

    def _divergence(self, step: int, loss: float, module: str) -> Divergence:
        rate = self.optimizer.param_groups[0]["lr"]
        return Divergence(self.epoch + 1, step, rate, f"{loss:g}", module)

    def _first_not_finite(self) -> str:
        """The module that the step in flight broke down in: the step is taken again, and watched."""
        found: list[str | None] = []
        with contextlib.closing(self.batches.stream(self.epoch, self.step)) as stream:
            for part in range(self.setup.accumulation):
                images, _ = next(stream)
                found.append(None if torch.isfinite(images).all() else "the images")
                self._seed_part(part)
                with self.setup.autocast():  # every part on every process: some modules wait for the others'
                    found.append(first_not_finite(self.model, functools.partial(self.model, images)))
        mine = next((name for name in found if name), None)
        return self.world.first_not_none(mine) or "the loss itself"

    def _result(self) -> RunResult:
        """What the run came to, and what it took."""
        epochs = read_metrics(self.folder)
        counted = cost(self.run.experiment.design, self.recipe.image_size, self.run.dataset.classes)
        sessions = read_sessions(self.folder)
        return replace(
            RunResult.of_epochs(self.run.identity, epochs),
            parameters=counted.parameters,
            macs=counted.macs,
            epochs=len(epochs),
            skipped_images=sum(each.skipped_images or 0 for each in epochs),
            divergences=tuple(self.divergences),
            restarts=len(sessions) - 1,
            lost_steps=sum(each.lost_steps for each in sessions),
            finished=datetime.now(UTC).isoformat(timespec="seconds"),
        )


def _in_plain_order(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """For whoever reads the weights: without the order in memory that training prefers."""
    return {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in state.items()}
