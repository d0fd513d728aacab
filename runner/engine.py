"""Training one run, from its manifest to its result."""

from __future__ import annotations

import fcntl
import importlib.metadata
import math
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from roadmap.costs import cost
from roadmap.network import build
from roadmap.plain import from_data
from roadmap.record import Run, append_metrics, keep_metrics, read_json, read_metrics, state, write_json, write_manifest
from runner import checkpoint
from runner.data import Normalization, TrainingBatches
from runner.device import Execution, available_device, choose_execution
from runner.optim import learning_rate, make_optimizer
from runner.randomness import seed_for, seed_torch
from runner.sources import Split, check_trainable, load_data

EVALUATION_BATCH = 256  # images
LIBRARIES = ("roadmap-convnext", "torch", "torchvision", "timm", "numpy", "scikit-learn")


class Stopped(Exception):
    """The run was asked to stop; its state is on the disk."""


class Diverged(ValueError):
    """The loss is no number any more."""


class Busy(ValueError):
    """Another process trains in the folder."""


def train(
    run: Run,
    folder: Path,
    threads: int,
    report: Callable[[dict[str, Any]], None] = lambda row: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, Any]:
    """Trains a run in its folder, or goes on where it was, and returns its result.

    Only one process may train in a folder: hold it with `exclusive`. `report` gets each epoch's row of metrics.
    Raises Stopped once `should_stop` says so, with the state saved; Diverged at a loss that is no number; ValueError
    where the folder belongs to another run.
    """
    if state(folder, run) == "absent":
        check_trainable(run)
        write_manifest(folder, run, **_circumstances(choose_execution(run.experiment.recipe, threads)))
    manifest = read_json(folder / "manifest.json") or {}
    stored: Execution = from_data(Execution, manifest.get("execution"), f"{folder}/manifest.json: execution")
    # The last bits depend on precision and threads, which stay; what device there is may have changed.
    execution = replace(stored, device=available_device())
    torch.set_num_threads(execution.threads)
    training = _Training(run, folder, execution)
    training.restore()
    while training.epoch < run.experiment.recipe.epochs:
        report(training.run_epoch(should_stop))
    result = training.result()
    write_json(folder / "result.json", result)
    return result


@contextmanager
def exclusive(folder: Path) -> Iterator[None]:
    """Makes the folder and holds it against a second process. Raises Busy where another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the system lets go of it when the process ends
        except BlockingIOError:
            raise Busy(f"{folder} is in training by another process; wait for it or stop it") from None
        yield


def _circumstances(execution: Execution) -> dict[str, Any]:
    """What does not decide the result but belongs to its record."""
    return {
        "execution": asdict(execution),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        "machine": {"host": platform.node(), "system": platform.platform(), "processor": platform.processor()},
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


class _Training:
    """The state of a run in training: what a checkpoint holds, and what follows from the run alone."""

    def __init__(self, run: Run, folder: Path, execution: Execution) -> None:
        self.run, self.folder, self.execution = run, folder, execution
        self.recipe = recipe = run.experiment.recipe
        train_split, self.test_split = load_data(run)
        self.batches = TrainingBatches(run, train_split)
        seed_torch(seed_for(run.seed, "initialization"))
        self.model: nn.Module = build(
            run.experiment.design,
            run.dataset.classes,
            drop_path=recipe.drop_path,
            initialization=recipe.initialization,
        ).to(torch.device(execution.device))
        self.model.to(memory_format=torch.channels_last)
        self.optimizer = make_optimizer(self.model, recipe)
        self.ema = (
            AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(recipe.ema), use_buffers=True)
            if recipe.ema is not None
            else None
        )
        self.epoch = self.step = 0  # the next to train
        self.loss_sum = torch.zeros((), device=execution.device)  # over the epoch's steps so far
        self.seconds = 0.0  # spent in the epoch so far

    def restore(self) -> None:
        """Takes up the newest checkpoint of the folder, if there is one."""
        saved = checkpoint.load(self.folder, self.run.identity)
        if saved:
            self.model.load_state_dict(saved["model"])
            self.optimizer.load_state_dict(saved["optimizer"])
            if self.ema:
                self.ema.load_state_dict(saved["ema"])
            self.epoch, self.step = saved["epoch"], saved["step"]
            self.loss_sum, self.seconds = saved["loss_sum"].to(self.execution.device), saved["seconds"]
        keep_metrics(self.folder, self.epoch)

    def save(self) -> None:
        checkpoint.save(
            self.folder,
            {
                "identity": self.run.identity,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "ema": self.ema.state_dict() if self.ema else None,
                "epoch": self.epoch,
                "step": self.step,
                "loss_sum": self.loss_sum,
                "seconds": self.seconds,
            },
        )

    def run_epoch(self, should_stop: Callable[[], bool]) -> dict[str, Any]:
        """Trains what is left of an epoch, evaluates, and writes metrics and checkpoint."""
        began, first_step = time.perf_counter(), self.step
        self.model.train()
        while self.step < self.batches.steps:
            self._train_step()
            if should_stop():
                self.seconds += time.perf_counter() - began
                self.save()
                raise Stopped(f"stopped in epoch {self.epoch + 1}, step {self.step}")
        trained = time.perf_counter() - began
        images = (self.step - first_step) * self.recipe.batch_size
        row: dict[str, Any] = {
            "epoch": self.epoch + 1,
            "train_loss": self._finite(self.loss_sum.item() / self.batches.steps),
            **self.evaluate(self.model),
            **({f"ema_{key}": value for key, value in self.evaluate(self.ema).items()} if self.ema else {}),
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": images / trained if images else None,
            "peak_memory_bytes": _peak_memory(self.execution.device),
            "seconds": self.seconds + time.perf_counter() - began,
        }
        append_metrics(self.folder, row)
        self.epoch, self.step, self.seconds = self.epoch + 1, 0, 0.0
        self.loss_sum.zero_()
        self.save()
        return row

    def _train_step(self) -> None:
        progress = (self.epoch + self.step / self.batches.steps) / self.recipe.epochs
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.recipe, progress)
        images, targets = (tensor.to(self.execution.device) for tensor in self.batches(self.epoch, self.step))
        seed_torch(seed_for(self.run.seed, "step", self.epoch, self.step))  # drop path
        self.optimizer.zero_grad()
        with self.execution.autocast():
            logits = self.model(images)
        loss = _loss(logits.float(), targets, self.recipe.label_smoothing)
        loss.backward()
        self.optimizer.step()
        if self.ema:
            self.ema.update_parameters(self.model)
        self.loss_sum += loss.detach()
        self.step += 1

    def _finite(self, loss: float) -> float:
        if not math.isfinite(loss):
            rate = self.optimizer.param_groups[0]["lr"]
            raise Diverged(f"the loss is {loss} in epoch {self.epoch + 1}, at a learning rate of {rate:g}")
        return loss

    @torch.no_grad()
    def evaluate(self, model: nn.Module) -> dict[str, float]:
        """Loss, and top-1 and top-5 accuracy in percent, on the held-out images, each once."""
        model.eval()
        loss, hits = 0.0, torch.zeros(2)
        for images, labels in _evaluation_batches(self.test_split, Normalization(self.run)):
            labels = labels.to(self.execution.device)
            with self.execution.autocast():
                logits = model(images.to(self.execution.device)).float()
            loss += F.cross_entropy(logits, labels, reduction="sum").item()
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            hits += torch.stack((ranked[:, 0].sum(), ranked.sum())).cpu()
        top1, top5 = (hits * 100 / len(self.test_split)).tolist()
        return {"test_loss": loss / len(self.test_split), "top1": top1, "top5": top5}

    def result(self) -> dict[str, Any]:
        """The last epoch's accuracy, never the best's, which would choose on the test set, and what the run took."""
        rows = read_metrics(self.folder)
        accuracy = {key: value for key, value in rows[-1].items() if key.endswith(("top1", "top5", "test_loss"))}
        counted = cost(self.run.experiment.design, self.recipe.image_size, self.run.dataset.classes)
        return {
            "format": 1,
            "identity": self.run.identity,
            **accuracy,
            "parameters": counted.parameters,
            "macs": counted.macs,
            "epochs": len(rows),
            "seconds": sum(row["seconds"] for row in rows),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        }


def _loss(logits: Tensor, targets: Tensor, label_smoothing: float) -> Tensor:
    """Cross entropy. Mixed targets are probabilities, with the smoothing in them already."""
    return F.cross_entropy(logits, targets, label_smoothing=label_smoothing if targets.ndim == 1 else 0.0)


def _evaluation_batches(split: Split, normalize: Normalization) -> Iterator[tuple[Tensor, Tensor]]:
    for first in range(0, len(split), EVALUATION_BATCH):
        part = slice(first, first + EVALUATION_BATCH)
        yield normalize(split.images[part].float()), split.labels[part]


def _peak_memory(device: str) -> int:
    """Bytes: the device's allocations, or on a CPU the process's resident memory."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
