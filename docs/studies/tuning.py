"""Data sets to tune recipes on: the last training images stand for test images, and the test images are not used.

roadmap run --plugin docs/studies/tuning.py --data digits-tuning --set recipe.learning_rate=2e-3
"""

from dataclasses import replace
from pathlib import Path

import roadmap
from roadmap.study.load import load_study
from runner.data.datasets import BUILT_IN

TRAINED = {"digits": 906, "fashion-mnist": 50_000}  # of the digits: seven of ten sheets


def of_training_images(name: str) -> roadmap.Dataset:
    whole, trained = load_study().dataset(name), TRAINED[name]
    return replace(whole, train_images=trained, test_images=whole.train_images - trained)


def split(name: str, path: Path | None):
    source, trained = BUILT_IN[name], TRAINED[name]
    train, _ = source.read(source.find(path))
    return (train.images[:trained], train.labels[:trained]), (train.images[trained:], train.labels[trained:])


@roadmap.dataset("digits-tuning", of_training_images("digits"))
def read_digits(path: Path | None):
    return split("digits", path)


@roadmap.dataset("fashion-mnist-tuning", of_training_images("fashion-mnist"))
def read_clothes(path: Path | None):
    return split("fashion-mnist", path)
