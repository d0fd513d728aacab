"""Networks held against ImageNet-A, -R, -Sketch and -C: small folders of the same shape, and figures by hand."""

from __future__ import annotations

import itertools
import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from analysis.published import alexnet_errors, published_robustness
from analysis.tables.robustness import best_evaluations, mean_corruption_error, score_of
from roadmap.cli import main
from roadmap.data.image_folders import file_sizes
from roadmap.data.robustness import (
    CORRUPTIONS,
    SEVERITIES,
    append_evaluation,
    find_shifted,
    imagenet_classes,
    read_evaluations,
)
from runner.data.datasets import load_data
from runner.measure import evaluate as evaluate_module
from runner.measure import robustness
from runner.measure.trained import read_trained
from runner.train.tasks.task import Scores
from tests.helpers.images import make_folder
from tests.helpers.records import study_run

# On one worker, which trains the networks for all of them.
pytestmark = pytest.mark.xdist_group("shifts")

# A tench, which neither set has; a goldfish and a great white shark, which R has; a stingray, which both have; a
# goldfinch and a junco: both, and A alone.
CLASSES = ("n01440764", "n01443537", "n01484850", "n01498041", "n01531178", "n01534433")
IN_A = ("n01498041", "n01531178", "n01534433")
ARCHIVES = {
    "noise": CORRUPTIONS[:3],
    "blur": CORRUPTIONS[3:7],
    "weather": CORRUPTIONS[7:11],
    "digital": CORRUPTIONS[11:],
}
SETTINGS = ["--set", "recipe.epochs=5", "--set", "recipe.warmup_epochs=0", "--set", "recipe.evaluation_crop=0.875"]
SETTINGS += ["--set", "recipe.batch_size=32"]


def save_scans(scans, root, classes, first, count):
    """Scans of a digit for each class, 32x32."""
    for name in classes:
        (root / name).mkdir(parents=True)
        its = scans.images[scans.labels == CLASSES.index(name)][first : first + count]
        for i, pixels in enumerate(its):
            image = Image.fromarray(pixels[0].numpy()).resize((32, 32), Image.Resampling.BILINEAR)
            image.convert("RGB").save(root / name / f"{i}.png")


@pytest.fixture(scope="module")
def scans():
    from roadmap.study.selection import ladder

    (rung,) = ladder("pico", "pico")
    return load_data(study_run(rung))


@pytest.fixture(scope="module")
def trained(scans, tmp_path_factory):
    """A data set of six of ImageNet's classes, two networks trained on it, and images of the same classes."""
    root = tmp_path_factory.mktemp("shifts")
    train, held_out = scans
    save_scans(train, root / "six" / "train", CLASSES, 0, 100)
    save_scans(held_out, root / "six" / "val", CLASSES, 0, 5)
    save_scans(held_out, root / "imagenet-a", IN_A, 5, 12)
    save_scans(held_out, root / "sketch", CLASSES, 5, 12)
    for archive, names in ARCHIVES.items():
        for i, name in enumerate(names):
            for severity in SEVERITIES:
                save_scans(held_out, root / "imagenet-c" / archive / name / severity, CLASSES, 5 + i + int(severity), 1)
    chosen = ["--steps", "pico", "--data", str(root / "six"), "--set", "recipe.ema=0.5"]
    assert main(["run", *chosen, "--seeds", "2", "--out", str(root / "runs"), *SETTINGS]) == 0
    return root


@pytest.fixture
def places(trained):
    """With no evaluation on record: what a test finds does not depend on those before it."""
    yield trained
    for record in trained.glob("runs/pico/*/evaluations.jsonl"):
        record.unlink()


def folder_of(places, seed=0):
    (folder,) = (places / "runs").glob(f"pico/pico-s{seed}-*")
    return folder


def told(capsys, *arguments, status=0):
    capsys.readouterr()
    assert main(list(arguments)) == status
    found = capsys.readouterr()
    return found.err if status else found.out


def evaluated(capsys, places, *arguments):
    return json.loads(told(capsys, "evaluate", "pico-s0", "--out", str(places / "runs"), "--json", *arguments))


def logits_by_hand(places, root, crop):
    """Of every image below a folder, with its class; by Pillow and the network alone."""
    found = read_trained(folder_of(places))
    mean, std = (np.array(each, dtype=np.float32) for each in (found.run.dataset.mean, found.run.dataset.std))
    images, labels = [], []
    for label, name in enumerate(CLASSES):
        for path in sorted((root / name).glob("*.png")):
            image = Image.open(path)
            if crop:
                image = image.resize((36, 36), Image.Resampling.BILINEAR).crop((2, 2, 34, 34))
            images.append((np.asarray(image, dtype=np.float32) / 255 - mean) / std)
            labels.append(label)
    with torch.no_grad():
        logits = found.network(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2))
    return logits, torch.tensor(labels)


def test_a_network_chooses_among_the_authors_classes_alone(places, capsys):
    """Three of the six are ImageNet-A's; one of them has no image in one of the folders."""
    logits, labels = logits_by_hand(places, places / "imagenet-a", crop=True)
    among = [CLASSES.index(name) for name in IN_A]
    chosen = torch.tensor(among)[logits[:, among].argmax(1)]
    (part,) = evaluated(capsys, places, "--data", str(places / "imagenet-a"))["parts"]
    assert part["top1"] == pytest.approx(100 * (chosen == labels).double().mean().item(), abs=1e-4)
    assert (part["images"], part["classes"], part["data"]) == (36, 3, "imagenet-a")


def test_classes_without_images_are_still_chosen_from(places, capsys, tmp_path):
    (tmp_path / "imagenet-a").mkdir()
    (tmp_path / "imagenet-a" / IN_A[0]).symlink_to(places / "imagenet-a" / IN_A[0])
    (part,) = evaluated(capsys, places, "--data", str(tmp_path / "imagenet-a"))["parts"]
    assert (part["images"], part["classes"]) == (12, 3)
    (other,) = evaluated(capsys, places, "--data", f"mine={tmp_path / 'imagenet-a'}")["parts"]
    assert (other["classes"], other["top1"]) == (1, 100.0)  # of another set the classes that it has


def test_the_sets_subsets_are_the_authors(places):
    """Their code has the stingray, not the tench, in both; the goldfish in R alone, and the junco in A alone."""
    from roadmap.data.robustness import Part, Shifted, chosen_classes

    classes = imagenet_classes()
    assert classes == tuple(sorted(classes)) and len(classes) == 1000
    for name, inside in (("imagenet-a", IN_A), ("imagenet-r", CLASSES[1:5] + CLASSES[5:])):
        chosen = chosen_classes(Shifted(name, (Part("", places),)), inside, classes)
        assert len(chosen) == 200 and set(inside) <= set(chosen) and "n01440764" not in chosen
    assert len(chosen_classes(Shifted("imagenet-sketch", (Part("", places),)), CLASSES, classes)) == 1000


def test_sketch_and_other_folders_are_found_by_what_they_are(places, tmp_path):
    assert find_shifted(str(places / "sketch")).name == "imagenet-sketch"
    assert find_shifted(f"imagenet-r={places / 'sketch'}").name == "imagenet-r"
    assert find_shifted(str(places / "six")) is None and find_shifted("digits") is None
    whole = find_shifted(str(places / "imagenet-c"))
    assert (whole.name, len(whole.parts)) == ("imagenet-c", 75)
    assert whole.parts[0].name == "gaussian_noise/1" and whole.parts[-1].name == "jpeg_compression/5"
    assert len(find_shifted(str(places / "imagenet-c" / "blur")).parts) == 20
    assert len(find_shifted(str(places / "imagenet-c" / "weather" / "fog")).parts) == 5
    (part,) = find_shifted(str(places / "imagenet-c" / "weather" / "fog" / "3")).parts
    assert part.name == "fog/3"
    assert find_shifted(f"cifar10={places / 'sketch'}", {"cifar10"}) is None
    assert find_shifted("digits", {"digits"}) is None


def test_mce_is_as_its_authors_define_it(places, capsys):
    """Errors over the severities, over AlexNet's, the mean of fifteen; images are not cropped again."""
    found = evaluated(capsys, places, "--data", str(places / "imagenet-c"))
    errors = {}
    for archive, names in ARCHIVES.items():
        for name in names:
            roots = [places / "imagenet-c" / archive / name / severity for severity in SEVERITIES]
            each = [logits_by_hand(places, root, crop=False) for root in roots]
            errors[name] = np.mean([(logits.argmax(1) != labels).double().mean() for logits, labels in each])
    wanted = np.mean([errors[name] / error for name, error in alexnet_errors().items()])
    assert found["mce"] == pytest.approx(100 * wanted)
    assert found["corruption_errors"]["fog"] == pytest.approx(100 * errors["fog"] / 0.819324)
    assert 0 < found["mce"] < 100
    assert {"model": "convnext-t", "pretraining": "", "image_size": 224, "clean": 82.1, "imagenet-c": 53.2} in found[
        "published"
    ]


def test_alexnet_itself_has_an_mce_of_one_hundred():
    errors = {name: dict.fromkeys(SEVERITIES, 100 * error) for name, error in alexnet_errors().items()}
    assert mean_corruption_error(errors) == pytest.approx(100)
    assert mean_corruption_error({**errors, "fog": {"1": 50.0}}) is None
    assert tuple(errors) == CORRUPTIONS


def test_the_papers_table_is_whole():
    """A point of each column, by eye; ResNet-50's mCE is that of the authors' own leaderboard."""
    rows = {(each.model, each.image_size): each.scores for each in published_robustness()}
    assert len(rows) == 10
    assert rows["resnet-50", 224] == {
        **{"clean": 76.1, "imagenet-c": 76.7},
        **{"imagenet-a": 0.0, "imagenet-r": 36.1, "imagenet-sketch": 24.1},
    }
    assert rows["convnext-xl", 384]["imagenet-a"] == 69.3


def test_what_is_known_is_not_measured_again(places, capsys, monkeypatch):
    """As after an interruption; other weights, and other images, are."""
    kept = folder_of(places) / "evaluations.jsonl"
    kept.unlink(missing_ok=True)
    measured = Counter()

    def counted(run, network, execution, report, held_out):
        measured[held_out.root] += 1
        return Scores({"top1": 10.0, "top5": 20.0}, 0)

    monkeypatch.setattr(robustness, "evaluate_in_process", counted)
    corrupted = ("--data", str(places / "imagenet-c"))
    evaluated(capsys, places, *corrupted)
    assert measured.total() == 75
    kept.write_text("\n".join(kept.read_text().splitlines()[:10]) + '\n{"cut off": ')
    evaluated(capsys, places, *corrupted)
    assert measured.total() == 75 + 65
    evaluated(capsys, places, *corrupted)
    assert measured.total() == 75 + 65 and len(read_evaluations(kept.parent)) == 75
    evaluated(capsys, places, *corrupted, "--weights", "ema")
    assert measured.total() == 75 + 65 + 75
    image = next((places / "imagenet-c" / "weather" / "fog" / "2" / CLASSES[0]).glob("*.png"))
    before = image.read_bytes()
    image.write_bytes(before + b" ")
    file_sizes.cache_clear()  # as another process would see it
    evaluated(capsys, places, *corrupted)
    image.write_bytes(before)
    file_sizes.cache_clear()
    assert measured.total() == 75 + 65 + 75 + 1
    kept.unlink()


def test_figures_of_several_folders_are_not_mixed(places, capsys, tmp_path):
    """One lacks a part, and of another an image is damaged: the table has the whole one's mCE and accuracy, said of how
    many images.
    """
    folder = folder_of(places)
    (folder / "evaluations.jsonl").unlink(missing_ok=True)
    whole = evaluated(capsys, places, "--data", str(places / "imagenet-c"))["mce"]
    accuracy = evaluated(capsys, places, "--data", str(places / "imagenet-a"))["parts"][0]["top1"]
    for name in ("imagenet-c", "imagenet-a"):
        shutil.copytree(places / name, tmp_path / name)
    shutil.rmtree(tmp_path / "imagenet-c" / "noise" / "shot_noise" / "3")
    (tmp_path / "imagenet-c" / "noise" / "shot_noise" / "2" / CLASSES[0] / "0.png").unlink()
    (tmp_path / "imagenet-c" / "noise" / "shot_noise" / "2" / CLASSES[0]).rmdir()
    (tmp_path / "imagenet-a" / IN_A[0] / "0.png").write_bytes(b"no image")
    assert evaluated(capsys, places, "--data", str(tmp_path / "imagenet-c"))["mce"] is None
    skipping = ("--set", "execution.bad_images=skip")
    out = ("--out", str(places / "runs"))
    said = told(capsys, "evaluate", "pico-s0", *out, "--data", str(tmp_path / "imagenet-a"), *skipping)
    assert "35 readable of 36 images of ImageNet-A" in said
    found = {each.data: each for each in best_evaluations(folder, 5)}
    assert score_of(best_evaluations(folder, 5), "imagenet-c") == whole and found["imagenet-a"].top1 == accuracy
    study = ("--data", str(places / "six"), "--set", "recipe.ema=0.5", *SETTINGS)
    assert "pico: on 450 of ImageNet-C, 36 of ImageNet-A." in told(capsys, "table", "--robustness", *study, *out)
    (folder / "evaluations.jsonl").unlink()


def test_a_run_that_went_on_is_not_judged_by_what_it_was(places, capsys):
    """An evaluation of half of the epochs stands beside no finished run's accuracy."""
    folder = folder_of(places)
    evaluated(capsys, places, "--data", str(places / "imagenet-a"))
    (kept,) = [each for each in read_evaluations(folder) if each.data == "imagenet-a"][-1:]
    append_evaluation(folder, replace(kept, trained=(2, 0), top1=1.0))
    assert [each.top1 for each in best_evaluations(folder, 5)] == [kept.top1]
    (folder / "evaluations.jsonl").unlink()


def test_a_part_alone_has_no_figure_in_the_table(places, capsys):
    """Nor has a folder that is none of the published sets; and no sentence tells of no images."""
    kept = folder_of(places) / "evaluations.jsonl"
    kept.unlink(missing_ok=True)
    out = ("--out", str(places / "runs"))
    told(capsys, "evaluate", "pico-s0", *out, "--data", f"mine={places / 'imagenet-a'}")
    assert best_evaluations(kept.parent, 5) == []
    told(capsys, "evaluate", "pico-s0", *out, "--data", str(places / "imagenet-c" / "blur"))
    (folder_of(places, 1) / "evaluations.jsonl").unlink(missing_ok=True)
    study = ("--data", str(places / "six"), "--set", "recipe.ema=0.5", *SETTINGS)
    said = told(capsys, "table", "--robustness", *study, *out)
    (own,) = (line for line in said.splitlines() if line.startswith("pico "))
    assert own.split()[-4:] == ["-"] * 4 and "pico: on" not in said
    kept.unlink()


def test_a_part_first_and_then_the_whole_is_kept_once(places, capsys):
    kept = folder_of(places) / "evaluations.jsonl"
    kept.unlink(missing_ok=True)
    corrupted = places / "imagenet-c"
    evaluated(capsys, places, "--data", str(corrupted / "noise" / "shot_noise" / "3"))
    for _ in range(3):
        evaluated(capsys, places, "--data", str(corrupted))
        assert len(kept.read_text().splitlines()) == 1 + 75
    kept.unlink()


def test_other_classes_in_other_data_are_refused(places, capsys, scans):
    """As many, but not the same: a plausible accuracy would be no one's."""
    renamed = places / "renamed"
    for split in ("train", "val"):
        shutil.copytree(places / "six" / split, renamed / split)
        (renamed / split / CLASSES[0]).rename(renamed / split / "n02000000")
    command = ("evaluate", "pico-s0", "--out", str(places / "runs"), "--data", str(renamed))
    assert "must have the classes of pico/pico-s0: 'n01440764' (got 'n01443537')" in told(capsys, *command, status=2)


def test_its_own_data_under_other_names_are_refused_and_other_files_are_said(places, capsys):
    command = ("evaluate", "pico-s0", "--out", str(places / "runs"))
    try:
        for split in ("train", "val"):
            (places / "six" / split / CLASSES[0]).rename(places / "six" / split / "n02000000")
        message = "six must have the classes of pico/pico-s0: 'n01440764' (got 'n01443537')"
        assert message in told(capsys, *command, status=2)
    finally:
        for split in ("train", "val"):
            (places / "six" / split / "n02000000").rename(places / "six" / split / CLASSES[0])
    new = places / "six" / "val" / CLASSES[0] / "new.png"
    shutil.copy(new.with_name("0.png"), new)
    try:
        for data in ((), ("--data", str(places / "six"))):
            assert main([*command, *data]) == 0
            assert "six is no longer what pico/pico-s0 was trained on" in capsys.readouterr().err
    finally:
        new.unlink()


def test_another_folder_of_the_same_name_is_not_called_changed(places, tmp_path, capsys):
    other = shutil.copytree(places / "six", tmp_path / "six")
    first = other / "val" / CLASSES[0] / "0.png"
    shutil.copy(first, first.with_name("new.png"))
    assert main(["evaluate", "pico-s0", "--out", str(places / "runs"), "--data", str(other)]) == 0
    assert "no longer" not in capsys.readouterr().err


@pytest.mark.parametrize("parts", [0, 1])
def test_an_interrupt_says_where_the_results_so_far_are(places, capsys, monkeypatch, parts):
    whole = evaluate_module.evaluate_shifted

    def interrupted(*arguments):
        yield from itertools.islice(whole(*arguments), parts)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate_module, "evaluate_shifted", interrupted)
    assert main(["evaluate", "pico-s0", "--out", str(places / "runs"), "--data", str(places / "sketch")]) == 130
    kept = f"stopped: the results so far are kept in {folder_of(places) / 'evaluations.jsonl'}; the same command"
    assert (kept in capsys.readouterr().err) == bool(parts)


def test_several_runs_are_evaluated_by_one_command(places, capsys):
    command = ("evaluate", "pico-s0", "pico-s1", "--out", str(places / "runs"), "--data", str(places / "sketch"))
    records = json.loads(told(capsys, *command, "--json"))
    assert [each["run"] for each in records] == ["pico/pico-s0", "pico/pico-s1"]


def test_a_run_on_a_folder_is_evaluated_where_its_images_were(places, capsys):
    """Without an option; the record has the path."""
    result = json.loads((folder_of(places) / "result.json").read_text())
    assert evaluated(capsys, places)["top1"] == pytest.approx(result["top1"])


def test_half_of_the_corruptions_have_no_mce(places, capsys):
    command = ("evaluate", "pico-s0", "--out", str(places / "runs"), "--data", str(places / "imagenet-c" / "blur"))
    out = told(capsys, *command)
    assert (
        "No mCE: it is computed from fifteen corruptions" in out
        and "defocus_blur" in out
        and "gaussian_noise, shot" in out
    )
    assert "convnext-t" in out and "They can't be compared" in out


def test_the_table_has_the_seeds_and_the_papers_rows(places, capsys, tmp_path):
    out = ("--out", str(places / "runs"))
    for seed in (0, 1):
        for data in ("imagenet-a", "sketch", "imagenet-c"):
            told(capsys, "evaluate", f"pico-s{seed}", "--data", str(places / data), *out)
    study = ("--data", str(places / "six"), "--set", "recipe.ema=0.5", *SETTINGS)
    lines = told(capsys, "table", "--robustness", *study, *out).splitlines()
    (own,) = (line for line in lines if line.startswith("pico "))
    assert own.split()[2] == "2" and own.count("±") == 4
    assert any(
        line.split() == "swin-t imagenet, 224 pixels, as published 81.2 62.0 21.6 41.3 29.1".split() for line in lines
    )
    told(capsys, "table", "--robustness", *study, *out, "-o", str(tmp_path / "table.csv"))
    header, first = (tmp_path / "table.csv").read_text().splitlines()[:2]
    row = dict(zip(header.split(","), first.split(","), strict=True))
    evaluations = [found for seed in (0, 1) for found in read_evaluations(folder_of(places, seed)) if not found.part]
    for data in ("imagenet-a", "imagenet-sketch"):
        accuracies = [found.top1 for found in evaluations if found.data == data]
        assert accuracies and float(row[data]) == pytest.approx(np.mean(accuracies))
    assert row["imagenet-r"] == ""


def test_a_peers_weights_are_held_against_imagenet_a(tmp_path, capsys):
    """All images are to it a tench, which ImageNet-A has not; among the 200 they are stingrays."""
    from torchvision import models

    root = tmp_path / "imagenet-a"
    for name in IN_A[:2]:
        (root / name).mkdir(parents=True)
        for i in range(3):
            Image.new("RGB", (40, 40), (20 * i, 90, 10)).save(root / name / f"{i}.jpg")
    weights = models.convnext_tiny().state_dict()
    weights["classifier.2.weight"].zero_()
    weights["classifier.2.bias"].zero_()
    weights["classifier.2.bias"][0], weights["classifier.2.bias"][6] = 9.0, 5.0
    torch.save(weights, tmp_path / "weights.pth")
    peer = ("--state-dict", str(tmp_path / "weights.pth"), "--of", "torchvision/convnext_tiny")
    command = ("evaluate", "layer-scale", "--regime", "resnet-50", "--data", str(root), *peer)
    out = told(capsys, *command, "--set", "recipe.image_size=32")
    assert "resnet-50/layer-scale-s0 on 6 images of ImageNet-A among 200 of 1000 classes: top-1 50.00 %" in out
    assert "They can't be compared" not in out


@pytest.mark.parametrize(
    ("make", "written", "said"),
    [
        (lambda root: make_folder(root, ("x",)), "{root}/x", "class 'ant' is not among those of what the network was"),
        (lambda root: (root / "x").mkdir(parents=True), "{root}/x", "got 0 files and no folder"),
        (lambda root: (root / "x" / CLASSES[0]).mkdir(parents=True), "{root}/x", "no image; names of images end in"),
        (
            lambda root: make_folder(root, ("x",), CLASSES[:1]),
            "imagenet-a={root}/x",
            "'n01440764' is not among the 200",
        ),
        (
            lambda root: make_folder(root, ("x",), CLASSES),
            "imagenet-c={root}/x",
            "the layout must be CORRUPTION/SEVERITY/CLASS/IMAGE",
        ),
        (lambda root: None, "imagenet-a={root}/nowhere", "no such folder"),
        (lambda root: None, "{root}/nowhere", "no such folder"),
        (lambda root: None, "imagenet-a=", "must be a name, a path, or NAME=PATH"),
        (lambda root: None, "={root}", "must be a name, a path, or NAME=PATH"),
    ],
)
def test_folders_of_another_shape_are_refused(places, capsys, tmp_path, make, written, said):
    make(tmp_path)
    command = ("evaluate", "pico-s0", "--out", str(places / "runs"), "--data", written.format(root=tmp_path))
    assert said in told(capsys, *command, status=2)


def test_a_run_that_does_not_name_its_classes_is_refused(places, capsys, tmp_path):
    """Records of older versions."""
    folder = folder_of(places)
    other = tmp_path / "runs" / "pico" / folder.name
    other.mkdir(parents=True)
    for path in folder.iterdir():
        if path.is_file():
            (other / path.name).write_bytes(path.read_bytes())
    manifest = json.loads((other / "manifest.json").read_text())
    assert manifest.pop("classes") == list(CLASSES)
    (other / "manifest.json").write_text(json.dumps(manifest))
    command = ("evaluate", str(other), "--data", str(places / "sketch"))
    assert "does not name its classes" in told(capsys, *command, status=2)


def test_runs_on_data_without_folders_go_by_numbers(scans, capsys, tmp_path):
    """Digits, as images of classes 0 to 9."""
    chosen = ["--steps", "pico", "--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]
    assert main(["run", "--seeds", "1", *chosen, "--out", str(tmp_path / "runs")]) == 0
    for digit in (0, 3):
        (tmp_path / "mine" / str(digit)).mkdir(parents=True)
        Image.fromarray(scans[1].images[0][0].numpy()).save(tmp_path / "mine" / str(digit) / "a.png")
    out = told(capsys, "evaluate", "pico-s0", "--out", str(tmp_path / "runs"), "--data", str(tmp_path / "mine"))
    assert "pico/pico-s0 on 2 images of mine among 2 of 10 classes: top-1 50.00 %" in out


def test_an_unfinished_run_is_evaluated_and_reported_as_unfinished(places, capsys, tmp_path):
    folder = folder_of(places)
    other = tmp_path / folder.name
    other.mkdir()
    for name in ("manifest.json", "metrics.jsonl"):
        (other / name).write_bytes((folder / name).read_bytes())
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)
    torch.save({**saved, "epoch": 2}, other / "checkpoint.pt")
    capsys.readouterr()
    for command in (["evaluate", str(other), "--data", str(places / "sketch")], ["export", str(other)]):
        assert main(command) == 0
        assert "pico/pico-s0 has not finished training: 2 of 5 epochs" in capsys.readouterr().err
    assert Path(other / "network.safetensors").is_file()
