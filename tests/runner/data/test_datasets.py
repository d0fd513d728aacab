"""The data sets: read, found by their paths, and refused with what was looked for."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import shutil
import struct
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import roadmap
from roadmap.cli import main
from roadmap.data.datasets import DATASETS
from roadmap.data.image_folders import describe_content, describe_folder, list_images
from roadmap.data.packed_format import PackOptions
from roadmap.study.load import load_study
from runner.data import datasets, packed_writer
from runner.data.augmentation import resized
from runner.data.datasets import load_data
from runner.data.image import BadImage
from runner.data.splits import ImageFiles, InMemoryImages
from tests.helpers.images import make_folder
from tests.helpers.training import FEW_DIGITS


def test_digits_are_real_scans_with_a_held_out_split(make_run):
    train, test = load_data(make_run())
    dataset = make_run().dataset
    assert (len(train), len(test)) == (dataset.train_images, dataset.test_images) == (1287, 510)
    assert train.images.shape == (1287, 1, 8, 8) and train.images.dtype == torch.uint8
    assert test.labels.bincount().min() >= 47  # every digit is held out alike
    pixels = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in pixels for image in test.images)


def test_no_sheet_of_digits_is_in_both_splits(make_run):
    """A sheet begins with 0 to 9, three times."""
    train, test = load_data(make_run())
    labels = torch.cat([train.labels, test.labels])
    beginning = torch.arange(10).repeat(3)
    starts = [i for i in range(len(labels) - 29) if torch.equal(labels[i : i + 30], beginning)]
    assert len(starts) == 12 and len(train) in starts  # the other two of 14 sheets lack a digit there


def test_runs_of_the_earlier_split_of_the_digits_keep_it(make_run):
    run = make_run()
    earlier = replace(run, dataset=replace(run.dataset, version=1, train_images=1343, test_images=454))
    train, test = load_data(earlier)
    assert (len(train), len(test)) == (1343, 454)
    # The first scan of each digit is held out, and then every fourth.
    whole = torch.cat([split.images for split in load_data(run)])
    assert torch.equal(test.images[:10], whole[:10]) and torch.equal(train.images[:20], whole[10:30])


def test_other_versions_of_a_data_set_are_refused(make_run):
    run = make_run()
    with pytest.raises(ValueError, match=r"data set 'digits' has version 1 or 2 \(got 3\)"):
        load_data(replace(run, dataset=replace(run.dataset, version=3)))


def test_statistics_are_those_of_the_study(make_run):
    """The digits' at the size that they are trained at."""
    require_fashion_mnist()
    digits, fashion = make_run(), make_run(data="fashion-mnist")
    grown = resized(load_data(digits)[0].images, digits.experiment.recipe)
    for run, images in ((digits, grown), (fashion, load_data(fashion)[0].images)):
        scaled = images.float() / 255
        assert scaled.mean().item() == pytest.approx(run.dataset.mean[0], abs=0.005)
        assert scaled.std().item() == pytest.approx(run.dataset.std[0], abs=0.005)


def require_fashion_mnist():
    if not datasets.DEBIAN_FASHION_MNIST.is_dir():
        pytest.skip("Debian's package dataset-fashion-mnist is not installed")


def test_fashion_mnist_is_read_from_debians_package(make_run):
    require_fashion_mnist()
    train, test = load_data(make_run(data="fashion-mnist"))
    assert train.images.shape == (60000, 1, 28, 28) and test.images.shape == (10000, 1, 28, 28)
    assert train.labels.bincount().tolist() == [6000] * 10
    assert train.image(0).rgb().mode == "RGB" and train.image(0).size == (28, 28)


def idx(array):
    return b"\0\0\x08" + bytes([array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


def test_idx_files_are_read_packed_or_not(tmp_path):
    images = np.arange(2 * 28 * 28, dtype=np.uint8).reshape(2, 28, 28)
    for name, array in (("images-idx3", images), ("labels-idx1", np.array([3, 1], dtype=np.uint8))):
        (tmp_path / f"train-{name}-ubyte").write_bytes(idx(array))
        (tmp_path / f"t10k-{name}-ubyte.gz").write_bytes(gzip.compress(idx(array)))
    train, test = datasets.BUILT_IN["fashion-mnist"].read(tmp_path)
    assert train.images[:, 0].numpy().tolist() == test.images[:, 0].numpy().tolist() == images.tolist()
    assert train.labels.tolist() == [3, 1]


@pytest.mark.parametrize("damage", ["cut off", "not such a file", "half packed"])
def test_damaged_idx_files_are_named(tmp_path, damage):
    whole = idx(np.zeros((2, 28, 28), dtype=np.uint8))
    path = tmp_path / "train-images-idx3-ubyte"
    if damage == "half packed":
        path = path.with_name(path.name + ".gz")
    path.write_bytes(
        {"cut off": whole[:-5], "not such a file": b"hello", "half packed": gzip.compress(whole)[:-9]}[damage]
    )
    with pytest.raises(ValueError, match=r"train-images-idx3-ubyte.* can't be read in MNIST's format"):
        datasets.BUILT_IN["fashion-mnist"].read(tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifar_is_read_as_torchvision_reads_it(tmp_path, monkeypatch, name):
    """From files in its format; torchvision's check of their sums is put aside for these, which are made up."""
    folder, parts, key = {
        "cifar10": ("cifar-10-batches-py", [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"], "labels"),
        "cifar100": ("cifar-100-python", ["train", "test"], "fine_labels"),
    }[name]
    (tmp_path / folder).mkdir()
    generator = np.random.default_rng(0)
    for part in parts:
        pixels = generator.integers(0, 256, (4, 3072), dtype=np.uint8)
        (tmp_path / folder / part).write_bytes(pickle.dumps({"data": pixels, key: [0, 1, 2, 3]}))
    (tmp_path / folder / {"cifar10": "batches.meta", "cifar100": "meta"}[name]).write_bytes(
        pickle.dumps({"label_names": list("abcd"), "fine_label_names": list("abcd")})
    )
    from torchvision.datasets import CIFAR10

    # torchvision compares checksums, which made-up files have not.
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr(CIFAR10, "_load_meta", lambda self: None)
    source = datasets.BUILT_IN[name]
    for path in (tmp_path, tmp_path / folder):
        train, test = source.read(source.find(path))
        assert train.images.shape == (4 * (len(parts) - 1), 3, 32, 32) and test.labels.tolist() == [0, 1, 2, 3]
        assert np.asarray(test.image(1).rgb()).reshape(-1)[:3].tolist() == test.images[1, :, 0, 0].tolist()


def test_damaged_cifar_files_are_refused(tmp_path):
    (tmp_path / "cifar-10-batches-py").mkdir()
    source = datasets.BUILT_IN["cifar10"]
    with pytest.raises(ValueError, match=r"cifar-10-batches-py: files of cifar10 are missing or damaged"):
        source.read(source.find(tmp_path))


def test_a_download_that_fails_says_where_was_looked(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    def offline(self):
        raise OSError("no route to host")

    monkeypatch.setenv("ROADMAP_DATA", str(tmp_path / "data"))
    monkeypatch.setattr(CIFAR10, "download", offline)
    with pytest.raises(
        ValueError, match=r"cifar10: not in .*data/cifar-10-batches-py, and the download failed: no route"
    ):
        datasets.BUILT_IN["cifar10"].find(None)


def test_an_image_folder_is_read_class_by_class(tmp_path):
    root = make_folder(tmp_path, images=3)
    (root / "train" / "ant" / "deep").mkdir()
    Image.new("L", (9, 9), 200).save(root / "train" / "ant" / "deep" / "grey.png")
    (root / "train" / "ant" / "notes.txt").write_text("no image")
    (root / "train" / ".hidden").mkdir()
    train, held_out = (ImageFiles(listing) for listing in list_images(root))
    assert list_images(root)[0].classes == ("ant", "bee") and len(train) == 7 and len(held_out) == 6
    assert train.labels.tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert train.names[3] == b"ant/deep/grey.png"
    assert train.image(3).rgb().getpixel((0, 0)) == (200, 200, 200)


def test_sixteen_bits_are_scaled_and_pixels_without_a_known_range_are_refused(tmp_path):
    root = make_folder(tmp_path)
    ramp = np.linspace(0, 65535, 256 * 4).astype(np.uint16).reshape(4, 256)
    Image.fromarray(ramp).save(root / "train" / "ant" / "deep.png")
    Image.fromarray(ramp.astype(np.float32)).save(root / "train" / "ant" / "float.tiff")
    images = ImageFiles(list_images(root)[0])
    names = images.names.tolist()
    pixels = np.asarray(images.image(names.index(b"ant/deep.png")).rgb())
    assert np.array_equal(pixels[:, :, 0], ramp >> 8) and pixels.max() == 255
    with pytest.raises(BadImage, match=r"float\.tiff can't be read as an image: its pixels are of mode F"):
        images.image(names.index(b"ant/float.tiff")).rgb()


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1"])
def test_pixels_of_other_kinds_become_rgb(tmp_path, mode):
    root = make_folder(tmp_path)
    suffix = "tiff" if mode == "CMYK" else "png"
    Image.new("RGB", (7, 5), (250, 250, 250)).convert(mode).save(root / "train" / "ant" / f"other.{suffix}")
    images = ImageFiles(list_images(root)[0])
    image = images.image(images.names.tolist().index(f"ant/other.{suffix}".encode())).rgb()
    assert image.mode == "RGB" and min(image.getpixel((3, 3))) > 200


def test_a_file_that_the_system_does_not_give_is_not_taken_for_a_damaged_one(tmp_path):
    root = make_folder(tmp_path)
    images = ImageFiles(list_images(root)[0])
    (root / "train" / "ant" / "0.jpg").unlink()
    with pytest.raises(FileNotFoundError):
        images.image(0)


def test_a_single_class_is_refused(tmp_path, capsys):
    assert command("--data", str(make_folder(tmp_path / "ants", classes=("ant",)))) == 2
    assert "'ant' is the only class; two or more are needed" in capsys.readouterr().err


def test_a_folders_identity_is_what_it_holds_not_where_it_is(tmp_path, make_run):
    one, other = make_folder(tmp_path / "one"), make_folder(tmp_path / "other")
    for path in [*one.rglob("*.jpg"), *other.rglob("*.jpg")]:
        os.utime(path, (0, 0))
    runs = [replace(make_run(), data=root.name, dataset=describe_folder(root)) for root in (one, other)]
    assert runs[0].identity == runs[1].identity
    Image.new("RGB", (90, 90)).save(other / "train" / "bee" / "more.jpg")
    describe_folder.cache_clear()
    list_images.cache_clear()
    assert replace(runs[1], dataset=describe_folder(other)).identity != runs[0].identity


def test_classes_without_held_out_images_keep_their_numbers(tmp_path):
    root = make_folder(tmp_path, classes=("ant", "bee", "cat"))
    for path in (root / "val" / "bee").iterdir():
        path.unlink()
    (root / "val" / "bee").rmdir()
    _, held_out = list_images(root)
    assert held_out.classes == ("ant", "bee", "cat") and set(held_out.labels) == {0, 2}


def command(*arguments):
    return main(["run", "--steps", "pico", "--dry-run", *arguments])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, r"nowhere: no such folder; it must have train/CLASS/IMAGE and val/CLASS/IMAGE"),
        (lambda root: make_folder(root, splits=("train",)), r"must have val/ or validation/ or test/"),
        (lambda root: make_folder(root, splits=("val",)), r"must have train/"),
        (lambda root: make_folder(root, images=0), r"ant: no image; names of images end in \.jpg"),
        (lambda root: make_folder(root, classes=()), "must have a folder of images for each class"),
    ],
)
def test_a_wrong_folder_is_refused_with_what_was_looked_for(tmp_path, capsys, make, message):
    root = tmp_path / "nowhere"
    make(root)
    assert command("--data", str(root)) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and re.search(message, error), error


def test_held_out_classes_that_were_never_trained_are_named(tmp_path, capsys):
    root = make_folder(tmp_path / "data")
    make_folder(tmp_path / "more", splits=("val",), classes=("wasp",))
    (tmp_path / "more" / "val" / "wasp").rename(root / "val" / "wasp")
    assert command("--data", str(root)) == 2
    assert "val: class 'wasp' is not among those of" in capsys.readouterr().err


def test_an_unknown_name_is_refused_with_the_valid_ones(capsys):
    assert command("--data", "fashion-mnits") == 2
    assert "did you mean 'fashion-mnist'? valid: digits, fashion-mnist, cifar10" in capsys.readouterr().err


def test_a_folder_called_like_a_data_set_has_to_say_what_it_is(tmp_path, capsys):
    root = make_folder(tmp_path / "imagenet")
    assert command("--data", str(root)) == 2
    assert f"imagenet={root} is the data set of that name" in capsys.readouterr().err
    assert command("--data", f"mine={root}", "--set", "recipe.batch_size=4") == 0


def test_named_data_may_be_given_a_path_that_has_to_hold_it(tmp_path, capsys, monkeypatch):
    def run(*arguments):
        return main(["run", "--seeds", "1", "--steps", "pico", "--out", str(tmp_path / "runs"), *arguments])

    root = make_folder(tmp_path / "set")
    for name, wanted in (
        ("fashion-mnist", "does not contain train-images-idx3-ubyte (or .gz) and its three companions"),
        ("cifar10", "does not contain cifar-10-batches-py/"),
        ("imagenet", "no such folder"),
        ("digits", "the digits come with scikit-learn"),
    ):
        path = tmp_path / "wrong" if name == "imagenet" else root
        assert run("--data", f"{name}={path}") == 2
        assert wanted in capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    assert run("--data", "imagenet") == 2
    assert "data/imagenet: no such folder" in capsys.readouterr().err


def test_a_study_of_an_image_folder_trains(tmp_path, capsys):
    root = make_folder(tmp_path / "insects", images=4)
    settings = ["--seeds", "1", "--set", "recipe.batch_size=4", "--set", "recipe.epochs=3"]
    settings += ["--set", "recipe.image_size=24"]
    arguments = ["run", "--steps", "pico", "--data", str(root), "--out", str(tmp_path / "runs"), *settings]
    assert main(arguments) == 0
    assert len(list((tmp_path / "runs").glob("pico/pico-s0-*/result.json"))) == 1
    assert main(arguments) == 0
    out = capsys.readouterr().out
    assert "nothing to train" in out and f"{root}: 16 images in 2 classes\n" in out


def test_every_data_set_of_the_study_can_be_read():
    assert set(load_study().data) == set(datasets.BUILT_IN) == set(DATASETS) - {FEW_DIGITS}  # the tests' own
    assert isinstance(datasets.BUILT_IN["digits"].read(datasets.BUILT_IN["digits"].find(None))[0], InMemoryImages)


@pytest.mark.parametrize("where", ["train", "val", "train/cat", "val/cat", "train/cat/more", "train/ant/2019"])
def test_a_link_to_nothing_is_refused(tmp_path, capsys, where):
    """Of an unmounted disk: without the class, or its images, other networks would be trained."""
    folder = make_folder(tmp_path / "d", classes=("ant", "cat", "owl"))
    shutil.rmtree(folder / where, ignore_errors=True)
    (folder / where).symlink_to("/mnt/gone")
    if where == "val":
        shutil.copytree(folder / "train", folder / "test")  # not taken in its place
    assert main(["run", "--data", str(folder), "--out", str(tmp_path / "runs")]) == 2
    assert f"{folder / where} is a link to /mnt/gone, which is not there" in capsys.readouterr().err
    with pytest.raises(ValueError, match="link to /mnt/gone"):
        packed_writer.pack(folder, tmp_path / "packed", PackOptions(), 1, lambda done, total: None)


def test_a_line_says_what_is_in_a_folder_and_what_is_left_out(tmp_path):
    folder = make_folder(tmp_path / "d", classes=("ant", "cat", "owl"), images=3)
    shutil.rmtree(folder / "val" / "owl")
    for name in ("a.jfif", "b.JFIF", "c.gif", "d", ".hidden"):
        (folder / "train" / "cat" / name).touch()
    for name in ("val/e.jpg", "train/f.jpg", "train/.hidden"):
        (folder / name).touch()
    contents = "15 images in 3 classes; 4 files of other types ignored (2 .jfif, 1 .gif, 1 no suffix)"
    contents += "; 2 files outside the class folders ignored (train/f.jpg, val/e.jpg)"
    line = f"{folder}: {contents}; without validation images: owl"
    assert describe_content(folder) == line
    options: Any = {"data": folder, "steps": "pico", "out": tmp_path / "runs", "settings": {"recipe.batch_size": 8}}
    assert roadmap.plan(**options).describe_data() == line
    assert roadmap.plan(steps="pico", out=tmp_path).describe_data() == "digits: 1797 images in 10 classes"
