"""Decoding the crop of a JPEG, by the libraries that can: milliseconds an image on one core, and whether pixels differ.

    python benchmarks/decoding.py [--rounds 7] [--images 256]

Random resized crops of photographs of 500 x 375 pixels, as in training. The peer is OpenCV, which decodes the whole
image, as training does without the extra `decode`; with it, it uses nvImageCodec. Libraries that are not installed are
named and left out: nvImageCodec, pyvips, PyTurboJPEG with libjpeg-turbo 3 (its path in TURBOJPEG), NVIDIA DALI. The
header is read before, for all.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import torch
from photographs import SIZE, write_photographs
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation

from runner.data.image import EncodedImage

Edges = tuple[int, int, int, int]  # top, left, height, width
Pixels = npt.NDArray[np.uint8]
Crops = Sequence[tuple[EncodedImage, Edges]]
Decode = Callable[[Crops], Iterator[Pixels]]


def one_by_one(decode: Callable[[EncodedImage, Edges], Pixels]) -> Decode:
    return lambda crops: (decode(encoded, edges) for encoded, edges in crops)


def inside(image: Pixels, edges: Edges) -> Pixels:
    top, left, height, width = edges
    return image[top : top + height, left : left + width]


def opencv(encoded: EncodedImage, edges: Edges) -> Pixels:
    return inside(encoded.pixels(), edges)


def nvimagecodec() -> Decode:
    from nvidia import nvimgcodec  # noqa: F401  # without it a part is decoded by OpenCV

    return one_by_one(lambda encoded, edges: encoded.part(*edges))


def libvips() -> Decode:
    os.environ["VIPS_CONCURRENCY"] = "1"
    import pyvips

    def decode(encoded: EncodedImage, edges: Edges) -> Pixels:
        top, left, height, width = edges
        image = pyvips.Image.new_from_buffer(encoded.data, "", access="sequential")
        return np.asarray(image.crop(left, top, width, height).numpy())

    return one_by_one(decode)


def turbojpeg() -> Decode:
    """A lossless crop to whole blocks, then decoded: the binding has no region in decoding."""
    from turbojpeg import TJPF_RGB, TurboJPEG

    library = TurboJPEG(os.environ.get("TURBOJPEG"))

    def decode(encoded: EncodedImage, edges: Edges) -> Pixels:
        top, left, height, width = edges
        above, before = top % 16, left % 16
        cropped = library.crop(encoded.data, left - before, top - above, width + before, height + above)
        return inside(library.decode(cropped, TJPF_RGB), (above, before, height, width))

    return one_by_one(decode)


def dali() -> Decode:
    from nvidia.dali import fn, pipeline_def, types

    waiting: list[tuple[EncodedImage, Edges]] = []

    def feed() -> tuple[list[Pixels], ...]:
        batch, waiting[:] = waiting[:32], waiting[32:]
        data = [np.frombuffer(encoded.data, np.uint8) for encoded, _ in batch]
        starts, shapes = ([np.array(edges[part], np.int32) for _, edges in batch] for part in (np.s_[:2], np.s_[2:]))
        return data, starts, shapes

    @pipeline_def(batch_size=32, num_threads=1, device_id=None, prefetch_queue_depth=1)
    def pipeline():
        data, start, shape = fn.external_source(feed, num_outputs=3)
        return fn.decoders.image_slice(data, start=start, shape=shape, axis_names="HW", output_type=types.RGB)

    built = pipeline()
    built.build()

    def decode(crops: Crops) -> Iterator[Pixels]:
        waiting.extend(crops)
        for _ in range(0, len(crops), 32):
            (images,) = built.run()
            yield from (np.asarray(image) for image in images)

    return decode


def ways() -> dict[str, Decode]:
    found: dict[str, Decode] = {"OpenCV, the whole image": one_by_one(opencv)}
    found["Pillow, the whole image"] = one_by_one(
        lambda encoded, edges: inside(np.asarray(EncodedImage(encoded.data).rgb(), np.uint8), edges)
    )
    libraries = {"nvImageCodec": nvimagecodec, "libvips": libvips, "PyTurboJPEG": turbojpeg, "DALI": dali}
    for name, make in libraries.items():
        try:
            found[name] = make()
        except (ImportError, OSError, RuntimeError) as error:
            print(f"{name}: left out, {type(error).__name__} {error}".splitlines()[0])
    return found


def crops_of(folder: Path, count: int) -> Crops:
    write_photographs(folder, count)
    torch.manual_seed(0)
    image = Image.new("RGB", SIZE)
    return [
        (
            EncodedImage(path.read_bytes()),
            tuple(RandomResizedCropAndInterpolation.get_params(image, (0.08, 1.0), (0.75, 4 / 3))),
        )
        for path in sorted(folder.glob("train/*/*.jpg"))
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=256, help="images per round, a multiple of 32")
    options = parser.parse_args()
    if options.images < 32 or options.images % 32:
        parser.error(f"--images must be a multiple of 32 (got {options.images})")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as scratch:
        crops = crops_of(Path(scratch), options.images)
    ways_here = ways()
    expected = [opencv(*crop) for crop in crops]
    differences: dict[str, int] = {}
    seconds: dict[str, list[float]] = {way: [] for way in ways_here}
    for way, decode in ways_here.items():
        pairs = zip(decode(crops), expected, strict=True)
        differences[way] = max(int(np.abs(found.astype(int) - right).max()) for found, right in pairs)
    for _ in range(options.rounds):
        for way, decode in ways_here.items():
            began = time.perf_counter()
            for _ in decode(crops):
                pass
            seconds[way].append((time.perf_counter() - began) / len(crops))
    print(f"\nms an image on one core, medians of {options.rounds} alternating rounds; times OpenCV's speed")
    for way, own in seconds.items():
        pairs = zip(seconds["OpenCV, the whole image"], own, strict=True)
        ratio = statistics.median(theirs / ours for theirs, ours in pairs)
        apart = f"differs by up to {differences[way]}" if differences[way] else "the same pixels"
        print(f"{way:<26}{1e3 * statistics.median(own):7.3f} ms   ratio {ratio:.2f}   {apart}")


if __name__ == "__main__":
    main()
