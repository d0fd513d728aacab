"""Packed data sets: the images of the folder that they were made of, whatever interrupts the making or damages them."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import torch
from PIL import Image

from roadmap.cli import main
from roadmap.data.image_folders import describe_folder, list_images
from roadmap.data.packed_format import INDEX, JOURNAL, PackOptions, read_index
from roadmap.serialization.plain_data import to_data
from runner.data import packed_writer
from runner.data.datasets import load_data
from runner.data.image import BadImage
from runner.data.packed_reader import DamagedShard, Packed
from runner.data.splits import ImageFiles
from tests.helpers.command import start_apart
from tests.helpers.images import make_folder
from tests.helpers.waiting import until

NOISE = np.random.default_rng(0)


def make_photographs(root, count=12, size=(500, 375)):
    """Of two classes in turn, so large that a few of them fill a file of one MB."""
    for split, images in (("train", count), ("val", 4)):
        for i in range(images):
            path = root / split / ("ant", "bee")[i % 2] / f"{i:02}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = NOISE.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
            Image.fromarray(pixels).save(path, quality=90)
    return root


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def packed(photographs, tmp_path_factory):
    """The photographs in several files. To be read only."""
    folder = tmp_path_factory.mktemp("packed") / "set"
    assert pack(photographs, folder, "--shard-megabytes", "1") == 0
    return folder


@pytest.fixture
def copy(packed, tmp_path):
    """To be damaged."""
    return Path(shutil.copytree(packed, tmp_path / "copy"))


def pack(source, folder, *options):
    return main(["data", "pack", str(source), str(folder), *options])


def check(folder):
    return main(["data", "check", str(folder)])


def both(source, folder):
    """Each split, as it is read of the folder and packed."""
    for listing, name in zip(list_images(source), ("train", "val"), strict=True):
        yield ImageFiles(listing), Packed(folder, name)


def assert_same_images(source, folder):
    for files, packed_split in both(source, folder):
        assert torch.equal(packed_split.labels, files.labels) and len(packed_split) == len(files)
        for i in range(len(files)):
            assert bytes(packed_split.encoded(i)) == files.encoded(i)
            assert packed_split.image(i).rgb().tobytes() == files.image(i).rgb().tobytes()


def one_sentence(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


def test_a_packed_folder_holds_the_same_images_and_is_the_same_data_set(photographs, packed, capsys):
    assert_same_images(photographs, packed)
    assert describe_folder(packed) == describe_folder(photographs)
    assert len(read_index(packed).train.shards) > 2 and not (packed / JOURNAL).exists()
    assert check(packed) == 0
    assert "16 images in 4 files, all as they were written" in capsys.readouterr().out


def test_arrow_itself_reads_the_files(packed):
    shard = packed / read_index(packed).train.shards[0].file
    with pyarrow.memory_map(str(shard)) as file:
        table = pyarrow.ipc.open_file(file).read_all()
    assert table.column("name")[0].as_py() == b"ant/00.jpg"
    assert Image.open(io.BytesIO(table.column("image")[0].as_py())).size == (500, 375)


def test_a_run_on_packed_data_is_the_folders_run_bit_for_bit(tmp_path):
    """With workers, which are forked."""
    source, folder = make_folder(tmp_path / "insects", images=4), tmp_path / "packed"
    assert pack(source, folder) == 0
    settings = ("recipe.batch_size=4", "recipe.epochs=3", "recipe.image_size=32", "execution.workers=2")
    of_the_machine = ("seconds", "images_per_second", "peak_memory_bytes")
    results = []
    for data in (source, folder):
        out = tmp_path / f"runs-{data.name}"
        arguments = ["run", "--seeds", "1", "--steps", "layer-scale", "--data", f"insects={data}", "--out", str(out)]
        assert main([*arguments, *(word for each in settings for word in ("--set", each))]) == 0
        (run,) = out.glob("*/*/result.json")
        rows = [json.loads(line) for line in (run.parent / "metrics.jsonl").read_text().splitlines()]
        results.append((run.parent.name, [{key: row[key] for key in row if key not in of_the_machine} for row in rows]))
    assert results[0] == results[1] and len(results[0][1]) == 3


def test_reencoded_images_are_another_data_set_no_larger_than_requested(tmp_path, capsys):
    source, folder = tmp_path / "source", tmp_path / "small"
    make_photographs(source, count=4)
    for split in ("train", "val"):
        Image.new("RGB", (40, 30)).save(source / split / "ant" / "tiny.png")
    assert pack(source, folder, "--resize", "100", "--quality", "60") == 0
    assert "8 encoded again" in capsys.readouterr().out
    assert describe_folder(folder).content != describe_folder(source).content
    for files, packed_split in both(source, folder):
        for i in range(len(packed_split)):
            size, small = files.image(i).size, packed_split.image(i).size
            assert small == ((133, 100) if size == (500, 375) else size)
    other = tmp_path / "other"
    assert pack(source, other, "--resize", "100", "--quality", "90") == 0
    assert describe_folder(other).content != describe_folder(folder).content


def test_reencoded_imagenet_is_not_taken_for_imagenet(tmp_path, make_run):
    source, folder = make_photographs(tmp_path / "source", count=4), tmp_path / "small"
    assert pack(source, folder, "--resize", "64") == 0
    with pytest.raises(ValueError, match="8 of its images were re-encoded, so it is not imagenet as published"):
        load_data(make_run(data="imagenet"), str(folder))


def test_pixels_of_other_kinds_are_packed_as_the_folder_has_them(tmp_path):
    source, folder = make_folder(tmp_path / "source", images=1), tmp_path / "packed"
    place = source / "train" / "ant"
    pixels = NOISE.integers(0, 256, (60, 80, 4), dtype=np.uint8)
    Image.fromarray(pixels[..., 0]).save(place / "grey.png")
    Image.fromarray(pixels, "CMYK").save(place / "cmyk.jpg")
    Image.fromarray(pixels[..., 0].astype(np.uint16) * 256).save(place / "sixteen.png")
    turned = Image.Exif()
    turned[0x0112] = 6
    Image.fromarray(pixels[..., :3]).save(place / "turned.jpg", exif=turned)
    assert pack(source, folder) == 0
    assert_same_images(source, folder)
    small = tmp_path / "small"
    assert pack(source, small, "--resize", "30", "--quality", "95") == 0
    for files, packed_split in both(source, small):
        for i in range(len(packed_split)):
            original = files.image(i).rgb()
            if original.size == (80, 60):
                assert packed_split.image(i).size == (40, 30)
                assert packed_split.image(i).header.getexif().get(0x0112) is None
                means = [np.asarray(each, float).mean((0, 1)) for each in (original, packed_split.image(i).rgb())]
                assert np.abs(means[0] - means[1]).max() < 3


def test_names_that_are_no_text_and_classes_without_held_out_images(tmp_path, capsys):
    source, folder = make_folder(tmp_path / "source", classes=("ant", "bee", "cat")), tmp_path / "packed"
    shutil.rmtree(source / "val" / "bee")
    os.rename(source / "train" / "ant" / "0.jpg", os.fsencode(source / "train" / "ant") + b"/\xff\xfe.jpg")
    assert pack(source, folder) == 0
    assert_same_images(source, folder)
    assert describe_folder(folder) == describe_folder(source)
    assert read_index(folder).val.images_of_class == (2, 0, 2) and check(folder) == 0


def test_bad_images_stop_the_packing_or_are_left_out_and_counted(tmp_path, capsys):
    source, folder = make_folder(tmp_path / "source"), tmp_path / "packed"
    (source / "train" / "bee" / "0.jpg").write_bytes(b"no image")
    assert pack(source, folder) == 2
    error = capsys.readouterr().err
    assert "bee/0.jpg can't be read as an image" in error and "--bad-images skip leaves it out" in error
    assert pack(source, folder, "--bad-images", "skip") == 0  # as it was told, with what is finished
    output = capsys.readouterr()
    assert "3 and 4 images in 2 files" in output.out and "1 left out" in output.out
    assert "left out:" in output.err and "bee/0.jpg" in output.err
    assert describe_folder(folder).train_images == 3
    assert describe_folder(folder).content != describe_folder(source).content
    assert check(folder) == 0


def test_interrupted_packing_resumes_after_the_finished_files(photographs, packed, tmp_path, monkeypatch, capsys):
    folder = tmp_path / "set"
    append_row = packed_writer.append_json_line

    def interrupt(path, row):
        append_row(path, row)
        raise KeyboardInterrupt

    monkeypatch.setattr(packed_writer, "append_json_line", interrupt)
    assert pack(photographs, folder, "--shard-megabytes", "1", "--jobs", "1") == 130
    assert "the same command resumes" in capsys.readouterr().err
    assert main(["run", "--data", str(folder), "--dry-run"]) == 2
    assert "its packing was not finished" in one_sentence(capsys)
    monkeypatch.undo()
    finished = json.loads((folder / JOURNAL).read_text().splitlines()[1])["shard"]["file"]
    before = (folder / finished).stat().st_mtime_ns
    assert pack(photographs, folder, "--shard-megabytes", "1") == 0
    assert (folder / finished).stat().st_mtime_ns == before
    assert_as_undisturbed(folder, packed)


def test_files_with_unknown_options_are_written_again(photographs, packed, tmp_path):
    """The first line of the journal, which has them, is damaged; other options are asked for."""
    folder = tmp_path / "set"
    shutil.copytree(packed, folder)
    (folder / INDEX).unlink()
    shards = read_index(packed).splits["train"].shards
    rows = [{"shard": to_data(shard), "reencoded": 0, "skipped": []} for shard in shards]
    (folder / JOURNAL).write_text("\n".join(["no JSON", *map(json.dumps, rows), ""]))
    assert pack(photographs, folder, "--shard-megabytes", "1", "--resize", "16") == 0
    assert read_index(folder).reencoded == read_index(packed).images
    (folder / JOURNAL).write_text("left by one that was killed at its end\n")
    assert pack(photographs, folder, "--shard-megabytes", "1", "--resize", "16") == 0
    assert not (folder / JOURNAL).exists()


def assert_as_undisturbed(folder, packed):
    assert read_index(folder) == read_index(packed)
    assert {path.name for path in folder.iterdir()} - {"lock"} == {path.name for path in packed.iterdir()} - {"lock"}
    for path in packed.glob("*.arrow"):
        assert (folder / path.name).read_bytes() == path.read_bytes()


def test_a_packing_that_is_killed_in_the_middle_of_a_file_ends_as_one_that_was_not(photographs, packed, tmp_path):
    folder = tmp_path / "set"
    process = start_apart("data", "pack", photographs, folder, "--shard-megabytes", "1")
    until(lambda: list(folder.glob("*.tmp")) or process.poll() is not None, "a file is being written", every=0.001)
    process.kill()
    process.communicate()
    assert not (folder / INDEX).exists()  # which is written last
    for path in folder.glob("*.arrow"):
        path.with_name(path.name + ".tmp").write_bytes(b"half a file")
    with (folder / JOURNAL).open("a") as file:
        file.write('{"shard": {"file": "train-')  # cut off
    assert pack(photographs, folder, "--shard-megabytes", "1") == 0
    assert_as_undisturbed(folder, packed)


@pytest.mark.parametrize(
    ("options", "told"),
    [((), r"shard-megabytes"), (("--shard-megabytes", "1", "--resize", "64"), "resize.*, quality")],
)
def test_other_options_for_what_is_packed_are_refused(photographs, packed, capsys, options, told):
    assert pack(photographs, packed, *options) == 2
    error = one_sentence(capsys)
    assert re.search(rf"was packed with other options \({told}.*\); choose another folder", error), error


def test_wrong_requests_are_refused(photographs, packed, tmp_path, capsys):
    (tmp_path / "else").mkdir()
    (tmp_path / "else" / "letter").touch()
    others = make_folder(tmp_path / "others")
    new = tmp_path / "new"
    for arguments, message in (
        ((others, packed, "--shard-megabytes", "1"), "was packed from other images"),
        ((photographs, tmp_path / "else"), "must be a new or empty folder, or a packed data set"),
        ((packed, new), "must be an image folder (got a packed data set)"),
        ((tmp_path / "nowhere", new), "no such folder"),
        (("~nobody-of-that-name/images", new), "no such folder"),
        ((photographs, new, "--quality", "80"), "--quality requires --resize"),
        ((photographs, new, "--resize", "0"), "--resize must be between 1 and 65500 (got 0)"),
        ((photographs, new, "--jobs", "0"), "--jobs must be at least 1 (got 0)"),
    ):
        assert pack(*arguments) == 2
        assert message in one_sentence(capsys)
    assert not new.exists()
    for folder in (photographs, tmp_path / "nowhere"):
        assert check(folder) == 2
        assert "is not a packed data set; `roadmap data pack` makes one" in one_sentence(capsys)


def test_the_same_packing_again_sees_that_a_file_is_gone_or_cut_off(photographs, copy, capsys):
    (first, *_) = sorted(copy.glob("*.arrow"))
    with first.open("r+b") as file:
        file.truncate(first.stat().st_size - 1)
    for _ in range(2):
        assert pack(photographs, copy, "--shard-megabytes", "1") == 2
        assert f"{first} is missing or has another size" in capsys.readouterr().err
        first.unlink(missing_ok=True)


def test_a_destination_within_the_source_is_refused(tmp_path, capsys):
    source = make_photographs(tmp_path / "source")
    for inside in (source, source / "train" / "packed", source / "train" / ".." / "new"):
        assert pack(source, inside) == 2
        assert "must be outside" in capsys.readouterr().err
        assert not (inside / "packed.json").exists()


def test_the_same_packing_again_does_nothing(photographs, packed):
    before = {path: path.stat().st_mtime_ns for path in packed.iterdir()}
    assert pack(photographs, packed, "--shard-megabytes", "1") == 0
    assert {path: path.stat().st_mtime_ns for path in packed.iterdir()} == before


def flip(path, at):
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 0x80]))


def test_an_index_that_is_no_json_any_more_is_damage(copy, capsys):
    flip(copy / "packed.json", 0)
    assert check(copy) == 1
    error = capsys.readouterr().err
    assert "packed.json is not valid JSON" in error and error.strip().endswith("and pack it again")


def test_a_flipped_byte_is_found_by_the_check_and_by_who_reads_it(copy, capsys):
    shard = copy / "train-00000.arrow"
    flip(shard, shard.stat().st_size // 2)
    assert check(copy) == 1
    output = capsys.readouterr()
    assert output.out.count("is damaged") == 1 and "train-00000.arrow: ant/" in output.out
    assert "remove it and pack it again" in output.err
    split, bad = Packed(copy, "train"), []
    for i in range(len(split)):
        try:
            split.image(i)
        except BadImage as error:
            bad.append(str(error))
    assert len(bad) == 1 and "train-00000.arrow: ant/" in bad[0] and "its checksum differs" in bad[0]


@pytest.mark.parametrize("region", ["head", "foot"])
def test_no_flipped_byte_is_missed_nor_ends_in_a_crash(copy, capsys, region):
    """In what describes the images: the file's schema, its offsets and its footer."""
    shard = copy / "train-00001.arrow"
    whole = shard.read_bytes()
    places = range(0, 1200, 37) if region == "head" else range(len(whole) - 1200, len(whole), 37)
    for at in (whole.find(b"checksum"), *places):
        flip(shard, at)
        assert check(copy) == 1, at
        assert "train-00001.arrow" in capsys.readouterr().out
        shard.write_bytes(whole)


def test_missing_and_truncated_files_are_named(copy, capsys):
    shard = copy / "train-00001.arrow"
    size = shard.stat().st_size
    os.truncate(shard, size - 100)
    (copy / "val-00000.arrow").unlink()
    assert check(copy) == 1
    output = capsys.readouterr().out
    assert f"train-00001.arrow must have {size} bytes (got {size - 100})" in output
    assert "No such file or directory" in output and "val-00000.arrow" in output
    split = Packed(copy, "train")
    with pytest.raises(DamagedShard, match="`roadmap data check` lists all damage"):
        split.image(len(split) // 2)
    with pytest.raises(FileNotFoundError, match="val-00000"):
        Packed(copy, "val").image(0)


def test_an_index_that_was_changed_is_found(copy, capsys):
    data = json.loads((copy / INDEX).read_text())
    (copy / INDEX).write_text(json.dumps({**data, "content": "0" * 16}))
    assert check(copy) == 1
    assert "its content differs from the index" in capsys.readouterr().out
    (copy / INDEX).write_text(json.dumps({**data, "format": 99}))
    assert check(copy) == 2
    assert "has format 99; this version reads 1" in one_sentence(capsys)


def test_without_the_library_one_sentence_says_what_to_install(photographs, packed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    assert pack(photographs, tmp_path / "new") == 2
    assert "packed data requires pyarrow: pip install 'roadmap-convnext[packed]'" in one_sentence(capsys)
    assert check(packed) == 2
    assert "packed data requires pyarrow" in one_sentence(capsys)


def test_more_files_than_may_be_mapped_at_a_time_are_read(photographs, packed, monkeypatch):
    from functools import lru_cache

    from runner.data import packed_reader as module

    # The system's limit is of the whole process, which has other files open too.
    monkeypatch.setattr(module, "_mapped", lru_cache(maxsize=1)(module._mapped.__wrapped__))
    split = Packed(packed, "train")
    first = split.encoded(0)
    last = bytes(split.encoded(len(split) - 1))
    files = ImageFiles(list_images(photographs)[0])
    assert bytes(first) == files.encoded(0) and last == files.encoded(len(files) - 1)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"quality": 80}, "quality requires resize"),
        ({"resize": 9, "quality": 101}, "quality must be between 1 and 100"),
    ],
)
def test_options_that_say_nothing_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        PackOptions(**values)
