"""A task: by how many quarters was the image turned? It needs no labels.

roadmap transfer pico-s0 --to rotation --plugin docs/examples/rotation.py
"""

import torch
from torch.nn import functional as F

import roadmap
from roadmap.network.modules import build
from roadmap.record.metrics import METRICS, Metric
from runner.train.tasks.classification import Classification
from runner.train.tasks.task import Scores

TURNS = 4
METRICS.add("turns", Metric("turns", "turns", "accuracy of turns", "turns", "%", 2))


@roadmap.task("rotation", metric="turns")
def rotation(run):
    return Rotation(run)


class Rotation(Classification):
    """Batches and weights are those of classification; network, loss and evaluation its own."""

    def network(self):
        recipe = self.recipe
        return build(self.run.experiment.design, TURNS, drop_path=recipe.drop_path, image_size=recipe.image_size)

    def cost(self):
        return roadmap.cost(self.run.experiment.design, self.recipe.image_size, TURNS)

    def forward(self, forward, images, targets):
        return forward(turned(images))

    def loss(self, output, targets):
        return F.cross_entropy(output.float(), turns(output))

    @torch.no_grad()
    def evaluate(self, model, batches, setup, world, between, *, last):
        world.broadcast(model.buffers())
        model.eval()
        batches.bad.count = 0
        counts = torch.zeros(3, dtype=torch.float64, device=setup.device)  # right, all, and images that can't be read
        for images, _labels, _indices in batches:
            between()
            if len(images):
                with setup.autocast():
                    logits = model(turned(images)).float()
                counts[0] += (logits.argmax(1) == turns(logits)).sum()
                counts[1] += len(images)
        counts[2] = batches.bad.count
        right, seen, skipped = world.all_reduce(counts).tolist()
        return Scores({"turns": 100 * right / seen}, round(skipped))


def turns(batch):
    """How often each image of a batch is turned: 0, 1, 2, 3, 0, ..."""
    return torch.arange(len(batch), device=batch.device) % TURNS


def turned(images):
    """N x 3 x H x H, each image turned by its number of quarters."""
    return torch.stack([image.rot90(i % TURNS, (1, 2)) for i, image in enumerate(images)])
