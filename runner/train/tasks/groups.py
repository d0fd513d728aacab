"""The groups of parameters of a run, for people: `roadmap transfer --dry-run`."""

from __future__ import annotations

import torch

from roadmap.record.run import Run
from roadmap.text import table
from runner.train.optimizer import parameter_groups
from runner.train.tasks.registry import task_of


def describe_groups(run: Run) -> str:
    """A table of the groups: learning rate, weight decay, tensors and parameters. Needs no weights."""
    recipe = run.experiment.recipe
    with torch.device("meta"):
        network = task_of(run).network()
    rows = []
    for group in parameter_groups(network, recipe):
        count = sum(parameter.numel() for parameter in group["params"])
        rate = recipe.learning_rate * group.get("scale", 1.0)
        rows.append([f"{rate:.4g}", f"{group['weight_decay']:g}", str(len(group["params"])), f"{count:,}"])
    fixed = sum(parameter.numel() for parameter in network.parameters() if not parameter.requires_grad)
    note = f"\n{fixed:,} parameters are frozen" if fixed else ""
    shown = table(["learning rate", "weight decay", "tensors", "parameters"], rows)
    return f"the parameters that are trained\n{shown}{note}"
