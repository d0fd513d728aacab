"""The state that training changes: network, optimizer, averaged weights, and one step on a given batch."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from roadmap.network.modules import recompute_activations
from roadmap.record.run import Run
from runner.machine.distributed import SINGLE_PROCESS, World
from runner.machine.randomness import seed_for, seed_globally
from runner.machine.setup import Setup
from runner.train.optimizer import make_optimizer
from runner.train.tasks.registry import task_of
from runner.train.tasks.task import Weights


class TrainState:
    """The network of a run on its device, its optimizer, and everything else that a training step changes.

    `weights` are those that a transfer begins with. Raises ValueError if they are of another network.
    """

    def __init__(self, run: Run, setup: Setup, world: World = SINGLE_PROCESS, weights: Weights | None = None) -> None:
        self.setup, self.recipe, self.task = setup, run.experiment.recipe, task_of(run)
        self.model = network_of(run, setup, world, weights)
        self.ema = (
            AveragedWeights(self.model, multi_avg_fn=get_ema_multi_avg_fn(self.recipe.ema), use_buffers=True)
            if self.recipe.ema is not None
            else None
        )
        self.parallel = _parallel(self.model, setup, world)
        self.forward = compiled(self.parallel, setup)
        self.optimizer = make_optimizer(self.model, self.recipe)
        self.scaler = torch.amp.GradScaler(setup.device, enabled=setup.precision == "fp16")

    @property
    def skips_updates(self) -> bool:
        """Whether an update can be called off on the device, as GradScaler does where gradients overflow."""
        return bool(getattr(self.optimizer, "_step_supports_amp_scaling", False))

    def backward(self, images: Tensor, targets: Any, *, parts: int = 1, part: int = 0) -> Tensor:
        """Adds the gradients of loss / `parts` of a part of a device's batch; returns its mean loss, detached.

        Images are B x 3 x H x W, targets as the batches of the task have them.
        """
        # Gradients are reduced over the processes once per step, with its last part.
        defers_reduction = isinstance(self.parallel, DistributedDataParallel) and part < parts - 1
        with self.parallel.no_sync() if defers_reduction else contextlib.nullcontext():  # type: ignore[operator]
            with self.setup.autocast():
                output = self.task.forward(self.forward, images, targets)
            loss = self.task.loss(output, targets)
            self.scaler.scale(loss / parts).backward()
        return loss.detach()

    def compile(self, images: Tensor, targets: Any) -> None:
        """Computes a step on a batch and forgets it, so that the compiler has done its work before time is taken."""
        kept = [buffer.clone() for buffer in self.model.buffers()]
        self.model.train()
        self.backward(images, targets)
        self.optimizer.zero_grad()
        with torch.no_grad():
            for buffer, before in zip(self.model.buffers(), kept, strict=True):
                buffer.copy_(before)

    def update(self, unless_infinite: Tensor | None = None) -> None:
        """Clips the gradients, updates the weights and the averaged weights.

        Of an optimizer that `skips_updates`, the weights remain as they are if the number `unless_infinite` is not
        finite. It is on the device, and not waited for.
        """
        if self.recipe.clip_gradients is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_gradients)
        if unless_infinite is not None and not self.scaler.is_enabled():  # else that does the same
            self.optimizer.found_inf = (~unless_infinite.isfinite()).float()  # type: ignore[attr-defined]
        self.scaler.step(self.optimizer)
        if hasattr(self.optimizer, "found_inf"):
            del self.optimizer.found_inf
        self.scaler.update()
        if self.ema:
            self.ema.update_parameters(self.model)


class AveragedWeights(AveragedModel):
    """torch's copies its count to the device in every step, and waits for it. The averages are the same."""

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        of_type: dict[torch.dtype, tuple[list[Tensor], list[Tensor]]] = {}
        for average, new in zip(_tensors(self.module), _tensors(model), strict=True):
            averages, news = of_type.setdefault(new.dtype, ([], []))
            averages.append(average)
            news.append(new)
        is_first = int(self.n_averaged) == 0
        for averages, news in of_type.values():
            if is_first:
                torch._foreach_copy_(averages, news)
            else:
                assert self.multi_avg_fn is not None
                self.multi_avg_fn(averages, news, self.n_averaged)
        self.n_averaged += 1


def _tensors(model: nn.Module) -> Iterator[Tensor]:
    return itertools.chain(model.parameters(), model.buffers())


def network_of(run: Run, setup: Setup, world: World = SINGLE_PROCESS, weights: Weights | None = None) -> nn.Module:
    """The initialized network of a run, on its device and in its memory format."""
    recipe, task = run.experiment.recipe, task_of(run)
    seed_globally(seed_for(run.seed, "initialization"))
    model = task.network()
    if weights is not None:
        task.load(model, weights)
    if setup.device == "cpu" and setup.compile is None:  # compilers decide what they keep
        recompute_activations(model)
    return _prepared(model, recipe.sync_batch_norm and world.size > 1, setup)


def compiled(model: nn.Module, setup: Setup) -> Callable[[Tensor], Tensor]:
    """The network's forward, compiled if the setup has a backend of torch.compile. All batches have one shape."""
    return model if setup.compile is None else torch.compile(model, backend=setup.compile, dynamic=False)


def _prepared(model: nn.Module, synchronized: bool, setup: Setup) -> nn.Module:
    if synchronized:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    return model.to(torch.device(setup.device)).to(memory_format=setup.memory_format)


def _parallel(model: nn.Module, setup: Setup, world: World) -> nn.Module:
    """The model with its gradients averaged over all processes."""
    if world.size == 1:
        return model
    devices = [torch.cuda.current_device()] if setup.device == "cuda" else None  # chosen by `World.joined`
    return DistributedDataParallel(model, device_ids=devices, gradient_as_bucket_view=True)
