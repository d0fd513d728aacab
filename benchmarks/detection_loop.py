"""Detection on scenes: our transfers beside torchvision's own Mask R-CNN in a plain loop, from the same runs.

    roadmap run --steps pico
    roadmap transfer pico-s0 pico-s1 pico-s2 --to detection
    python benchmarks/detection_loop.py [--rung pico] [--runs runs]

Takes two minutes for each seed on two cores. The peer has torchvision's model class, image transform, data loading and
loop, as in its references/detection. Recipe, sizes of heads, images and metric are the same, as are the first weights
of the boxes' predictor, and the pooling of regions unless `--pooling torchvision`: its own shifts regions by half a
cell, which costs points in small images. Prints box and mask AP of each seed, and means with standard deviations.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import time
from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.detection import MaskRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import RPNHead
from torchvision.ops import FeaturePyramidNetwork, MultiScaleRoIAlign
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from roadmap.network.modules import LayerNorm
from roadmap.options import StudyOptions
from roadmap.record.folder import read_manifest, read_result
from roadmap.record.results import scalar
from roadmap.record.run import Run, find_run
from roadmap.record.transfers import TransferOptions, Transfers
from roadmap.serialization.plain_data import from_data
from roadmap.tasks.heads import DetectorOptions
from runner.data.datasets import load_data
from runner.data.dense.objects import ObjectSplit
from runner.measure.trained import read_trained
from runner.train.tasks.backbone import build_backbone, load_backbone
from runner.train.tasks.coco import coco_metrics
from runner.train.tasks.detection import found_in
from runner.train.tasks.detector import AlignedPooling

METRICS = ("box_ap", "mask_ap")


class Scenes(Dataset):
    """Images from 0 to 1, and their targets as torchvision's references have them."""

    def __init__(self, split: ObjectSplit) -> None:
        self.split = split

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int):
        objects, size = self.split.objects(index), self.split.size(index)
        which = objects.targets()
        image = torch.from_numpy(self.split.read(index)).permute(2, 0, 1).float() / 255
        target = {
            "boxes": torch.from_numpy(objects.boxes[which]),
            "labels": torch.from_numpy(objects.labels[which]) + 1,
            "masks": torch.from_numpy(objects.decoded_masks(which, size)),
        }
        return image, target


class Maps(nn.Module):
    """A rung's maps, each with a LayerNorm, in torchvision's pyramid."""

    def __init__(self, backbone: nn.Module, channels: int) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, channels
        self.norms = nn.ModuleList(LayerNorm(width, eps=1e-6) for width in backbone.channels)
        self.pyramid = FeaturePyramidNetwork(list(backbone.channels), channels, LastLevelMaxPool())

    def forward(self, images):
        maps = zip(self.norms, self.backbone(images), strict=True)
        return self.pyramid(OrderedDict((str(i), norm(own)) for i, (norm, own) in enumerate(maps)))


def peer(run: Run, source: Path, options: DetectorOptions, pooling: str) -> MaskRCNN:
    recipe, classes = run.experiment.recipe, run.dataset.classes + 1
    backbone = build_backbone(run.experiment.design, recipe)
    load_backbone(nn.Sequential(backbone), read_trained(source).network.state_dict(), run.name)
    backbone.freeze("none", fixed_statistics=options.batch_norm == "frozen")
    strides = (*backbone.strides, 2 * backbone.strides[-1])
    sizes = tuple((round(options.anchor_scale * stride),) for stride in strides)
    layers = (options.mask_channels,) * options.mask_convolutions

    levels = [str(i) for i in range(len(backbone.strides))]
    pools = [
        MultiScaleRoIAlign(levels, side, 2, canonical_scale=56 * strides[0], canonical_level=4) for side in (7, 14)
    ]
    model = MaskRCNN(
        Maps(backbone, options.channels),
        min_size=options.test_short_side,
        max_size=options.longest_side,
        image_mean=list(run.dataset.mean),
        image_std=list(run.dataset.std),
        rpn_anchor_generator=AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes)),
        rpn_head=RPNHead(options.channels, 3),
        rpn_pre_nms_top_n_train=options.candidates,
        rpn_pre_nms_top_n_test=min(options.candidates, options.test_proposals),
        rpn_post_nms_top_n_train=options.proposals,
        rpn_post_nms_top_n_test=options.test_proposals,
        rpn_batch_size_per_image=options.proposal_samples,
        box_roi_pool=pools[0],
        box_head=TwoMLPHead(options.channels * 49, options.box_units),
        box_predictor=FastRCNNPredictor(options.box_units, classes),
        box_batch_size_per_image=options.box_samples,
        box_score_thresh=options.score_threshold,
        box_detections_per_img=options.detections,
        mask_roi_pool=pools[1],
        mask_head=MaskRCNNHeads(options.channels, layers, 1),
        mask_predictor=MaskRCNNPredictor(layers[-1], options.mask_channels, classes),
    )
    predictor = model.roi_heads.box_predictor  # begun as ours, and as Mask R-CNN's authors begin it
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    for layer in (predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.bias)
    if pooling == "aligned":  # which the model's class does not take
        model.roi_heads.box_roi_pool = AlignedPooling(backbone.strides, 7)
        model.roi_heads.mask_roi_pool = AlignedPooling(backbone.strides, 14)
    return model


def train(model: MaskRCNN, run: Run, split: ObjectSplit) -> None:
    recipe = run.experiment.recipe
    weights = [value for value in model.parameters() if value.requires_grad]
    groups = [
        {"params": [value for value in weights if value.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [value for value in weights if value.ndim <= 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas)
    loader = DataLoader(Scenes(split), recipe.batch_size, shuffle=True, drop_last=True, collate_fn=lambda batch: batch)
    steps = recipe.epochs * len(loader)
    warmup = recipe.warmup_steps

    def factor(step: int) -> float:
        cosine = (1 + math.cos(math.pi * step / steps)) / 2
        return min(1.0, (step + 1) / max(1, warmup)) * cosine

    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    model.train()
    for _ in range(recipe.epochs):
        for batch in loader:
            images, targets = zip(*batch, strict=True)
            loss = sum(model(list(images), list(targets)).values())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


@torch.no_grad()
def evaluate(model: MaskRCNN, split: ObjectSplit) -> dict[str, float | None]:
    """Their detections by our metric. Their masks are pasted by the transform, ours by `found_in`: so without it."""
    model.eval()
    paste, model.transform.postprocess = model.transform.postprocess, lambda found, *_: found
    detections = []
    for index in range(len(split)):
        image, _ = Scenes(split)[index]
        size = tuple(image.shape[1:])
        (found,) = model([image])
        detections.append(found_in(index, found, {"original": split.size(index), "size": size}))
    model.transform.postprocess = paste
    return coco_metrics(split, detections)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rung", default="pico")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    parser.add_argument("--pooling", choices=("aligned", "torchvision"), default="aligned")
    options = parser.parse_args()
    transfers = Transfers.of(TransferOptions("detection"), StudyOptions())
    values: dict[str, dict[str, list[float]]] = {who: {name: [] for name in METRICS} for who in ("ours", "peer")}
    for seed in range(options.seeds):
        source = find_run(f"{options.rung}-s{seed}", options.runs)
        run = transfers.run(read_manifest(source).run)
        result = read_result(run.folder(options.runs), run)
        if result is None:
            parser.error(f"first: roadmap transfer {options.rung}-s{seed} --to detection --out {options.runs}")
        random.seed(seed), np.random.seed(seed), torch.manual_seed(seed)
        training, held_out = load_data(run)
        model = peer(run, source, from_data(DetectorOptions, run.transfer.options, "options"), options.pooling)
        began = time.perf_counter()
        train(model, run, training)
        theirs = evaluate(model, held_out)
        seconds = time.perf_counter() - began
        for name in METRICS:
            values["ours"][name].append(scalar(result.values[name]))
            values["peer"][name].append(theirs[name])
        shown = ", ".join(
            f"{name} {values['ours'][name][-1]:.1f} and {values['peer'][name][-1]:.1f}" for name in METRICS
        )
        print(f"seed {seed}: {shown}; the peer's training took {seconds:.0f} s", flush=True)
    for name in METRICS:
        ours, theirs = values["ours"][name], values["peer"][name]
        means = [statistics.mean(own) for own in (ours, theirs)]
        spread = [statistics.stdev(own) if len(own) > 1 else math.nan for own in (ours, theirs)]
        print(
            f"{name}: ours {means[0]:.1f} ±{spread[0]:.1f}, torchvision's {means[1]:.1f} ±{spread[1]:.1f}, "
            f"ratio {means[0] / means[1]:.3f}"
        )


if __name__ == "__main__":
    main()
