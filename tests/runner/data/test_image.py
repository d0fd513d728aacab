"""Photographs decoded by OpenCV, against Pillow."""

from __future__ import annotations

import io
import os
import random

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from runner.data import image
from runner.data.image import BadImage, EncodedImage


@pytest.fixture(scope="module")
def china():
    return Image.fromarray(load_sample_image("china.jpg"))


def encoded(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


def by_pillow(data):
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}, {"quality": 30}])
def test_a_jpeg_has_pillows_pixels(china, options):
    data = encoded(china, **options)
    assert np.array_equal(EncodedImage(data).pixels(), by_pillow(data))
    assert EncodedImage(data).size == china.size


UPRIGHT = Image.Exif()
UPRIGHT[0x0112] = 6
PARTS = [{}, {"progressive": True}, {"subsampling": 0}, {"subsampling": 1}, {"quality": 30}, {"exif": UPRIGHT}]


@pytest.mark.parametrize("options", [*PARTS, {"restart_marker_blocks": 5}])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_part_has_the_pixels_of_the_whole(china, options, mode):
    """Decoded alone, where nvImageCodec is installed."""
    assert image._decoder_of_parts(os.getpid()) is not None, "pip install -e '.[test]' installs it"
    data = encoded(china.convert(mode), **options)
    whole, draw = by_pillow(data), random.Random(0)
    for _ in range(20):
        height, width = draw.randint(1, china.height), draw.randint(1, china.width)
        top, left = draw.randint(0, china.height - height), draw.randint(0, china.width - width)
        part = EncodedImage(data).part(top, left, height, width)
        assert np.array_equal(part, whole[top : top + height, left : left + width])


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_without_its_decoder_a_part_is_cut_from_the_whole(china, kind, monkeypatch):
    monkeypatch.setattr(image, "_decoder_of_parts", lambda process: None)
    part = EncodedImage(encoded(china, kind)).part(10, 20, 30, 40)
    assert np.array_equal(part, by_pillow(encoded(china, kind))[10:40, 20:60])


def test_the_decoder_of_parts_prints_nothing(china, capfd):
    image._decoder_of_parts.cache_clear()
    EncodedImage(encoded(china)).part(0, 0, 8, 8)
    with pytest.raises(BadImage):
        EncodedImage(b"\xff\xd8\xff\xd9").part(0, 0, 8, 8)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "CMYK", "I;16"])
def test_other_kinds_become_what_pillow_makes_of_them(china, mode):
    """Also those that OpenCV takes otherwise: print's colours, transparency, 16 bits."""
    small = china.resize((60, 40))
    other = Image.fromarray(np.arange(2400, dtype=np.uint16).reshape(40, 60)) if mode == "I;16" else small.convert(mode)
    for kind in ["PNG"] if mode not in ("L", "CMYK") else ["JPEG"]:
        data = encoded(other, kind)
        assert np.array_equal(EncodedImage(data).pixels(), np.asarray(EncodedImage(data).rgb()))
        if mode != "I;16":
            assert np.array_equal(EncodedImage(data).pixels(), by_pillow(data))


def test_a_camera_that_was_held_upright_is_passed_over_as_by_pillow(china):
    orientation = Image.Exif()
    orientation[0x0112] = 6
    data = encoded(china, exif=orientation)
    assert np.array_equal(EncodedImage(data).pixels(), by_pillow(data))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("reduction", [2, 4, 8])
def test_a_reduced_image_is_the_whole_one_made_smaller(china, kind, reduction):
    width, height = china.size
    pixels = EncodedImage(encoded(china, kind)).pixels(reduction)
    assert pixels.shape == (-(-height // reduction), -(-width // reduction), 3)
    expected = np.asarray(china.reduce(reduction)).astype(int)
    assert np.abs(pixels - expected).mean() < 3


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: data[:-2]])
def test_an_image_that_is_not_whole_is_named(china, damage):
    with pytest.raises(BadImage, match=r"cat/4\.jpg can't be read as an image: .*truncated"):
        EncodedImage(damage(encoded(china)), lambda: "cat/4.jpg").pixels()
    with pytest.raises(BadImage, match=r"cat/4\.jpg can't be read as an image: .*truncated"):
        EncodedImage(damage(encoded(china)), lambda: "cat/4.jpg").part(0, 0, 8, 8)


@pytest.mark.parametrize("data", [b"", b"hello", bytes(1000)])
def test_what_is_no_image_is_named(data):
    with pytest.raises(
        BadImage, match=r"cat/4\.jpg can't be read as an image: its format is unknown, or it is damaged"
    ):
        EncodedImage(data, lambda: "cat/4.jpg")


def test_trailing_bytes_do_no_harm(china):
    data = encoded(china)
    assert np.array_equal(EncodedImage(data + b"thumbnail").pixels(), by_pillow(data))


def test_grey_of_16_bits_is_read_from_whatever_file(china):
    levels = np.asarray(china.convert("L").resize((60, 40))).astype(">u2") * 257
    pgm = b"P5 60 40 65535\n" + levels.tobytes()
    plain = b"P2 60 40 65535\n" + " ".join(map(str, levels.ravel())).encode()
    png = encoded(Image.fromarray(levels.astype(np.uint16)), "PNG")
    expected = np.repeat((levels >> 8).astype(np.uint8)[..., None], 3, axis=2)
    for data in (pgm, plain, png):
        assert np.array_equal(EncodedImage(data).pixels(), expected)


def test_a_warning_names_the_first_image_that_has_it(china, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 2000)
    data = encoded(china.resize((60, 41)), "PNG")
    with pytest.warns(Image.DecompressionBombWarning, match=r"^d/cat/1\.png: Image size \(2460 pixels\)") as warned:
        for number in (1, 2):
            EncodedImage(data, lambda number=number: f"d/cat/{number}.png")
    assert len(warned) == 1
