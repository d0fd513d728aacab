"""One image of a data set, decoded on request. This module imports no large library."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image


END_OF_JPEG = b"\xff\xd9"
_WARNED: set[tuple[type[Warning], str]] = set()  # a data set may have a million images with the same warning


class BadImage(ValueError):
    """A file is no image, or not a complete one."""


class EncodedImage:
    """An image as the bytes of a file, or as pixels. Any error in it raises BadImage, with the image's location."""

    def __init__(
        self, data: bytes | memoryview | Image, where: Callable[[], str] = lambda: "an image in memory"
    ) -> None:
        from PIL import Image

        self.where, self.data = where, None if isinstance(data, Image.Image) else data
        if isinstance(data, Image.Image):
            self.header = data
        else:
            with self._with_location():
                self.header = Image.open(io.BytesIO(data))  # reads no pixels yet

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.header.size

    def rgb(self) -> Image:
        """The image in RGB, decoded by Pillow."""
        with self._with_location():
            return _in_rgb(self.header)

    def pixels(self, reduction: int = 1) -> npt.NDArray[np.uint8]:
        """RGB, uint8, height x width x 3; both sides divided by `reduction` (1, 2, 4 or 8), rounded up.

        A JPEG is decoded at that scale. The pixels are the same as Pillow's, in three quarters of the time. Raises
        BadImage.
        """
        import numpy as np

        decoded = self._decoded_by_opencv(reduction)
        if decoded is not None:
            return decoded
        image = self.rgb()  # for a damaged JPEG it raises the error
        return np.array(image if reduction == 1 else image.reduce(reduction))

    def part(self, top: int, left: int, height: int, width: int) -> npt.NDArray[np.uint8]:
        """The pixels of a rectangle. Of a JPEG, nvImageCodec decodes only that part, if it is installed.

        The pixels are the same either way. Raises BadImage.
        """
        # A file that lacks its end may be missing more, which only decoding all of it would find.
        if self._is_plain_jpeg and bytes(self.data[-2:]) == END_OF_JPEG:  # type: ignore[index]
            decode = _decoder_of_parts(os.getpid())
            decoded = decode(bytes(self.data), (top, left, top + height, left + width)) if decode else None  # type: ignore[arg-type]
            if decoded is not None:
                return decoded
        return self.pixels()[top : top + height, left : left + width]

    @property
    def _is_plain_jpeg(self) -> bool:
        """Whether it is an RGB or grey JPEG: libraries decode CMYK differently."""
        return self.data is not None and self.header.format == "JPEG" and self.header.mode in ("RGB", "L")

    def _decoded_by_opencv(self, reduction: int) -> npt.NDArray[np.uint8] | None:
        """None for what is no complete RGB or grey JPEG."""
        if not self._is_plain_jpeg:
            return None
        import cv2
        import numpy as np

        as_reduced = {
            1: cv2.IMREAD_COLOR_RGB,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8,
        }
        data = np.frombuffer(self.data, np.uint8)  # type: ignore[arg-type]
        decoded = cv2.imdecode(data, as_reduced[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)  # as Pillow does
        if decoded is not None and reduction > 1:
            decoded = cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB)
        return None if decoded is None else np.asarray(decoded, np.uint8)

    @contextlib.contextmanager
    def _with_location(self) -> Iterator[None]:
        """Errors and warnings name the image. A warning that other images have too is given for the first only."""
        from PIL import Image, UnidentifiedImageError

        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                yield
            for warning in caught:
                kind = (warning.category, str(warning.message))
                if kind not in _WARNED:
                    _WARNED.add(kind)
                    warnings.warn(f"{self.where()}: {warning.message}", warning.category, stacklevel=2)
            return
        except UnidentifiedImageError:
            reason = "its format is unknown, or it is damaged"
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            reason = str(error)
        raise BadImage(f"{self.where()} can't be read as an image: {reason}")


PartDecoder = Callable[[bytes, tuple[int, int, int, int]], "npt.NDArray[np.uint8] | None"]


@functools.cache
def _decoder_of_parts(process: int) -> PartDecoder | None:
    """nvImageCodec's decoder in this process, of a JPEG and the edges of a rectangle. None if it is not installed.

    A forked process needs its own, hence the number of the process.
    """
    os.environ.setdefault("PYNVIMGCODEC_VERBOSITY", "0")  # no messages on damaged images
    try:
        with _silent_errors():  # it prints which of its other libraries are absent
            from nvidia import nvimgcodec  # type: ignore[import-untyped,unused-ignore]

            cpu = [nvimgcodec.Backend(nvimgcodec.CPU_ONLY)]
            decoder = nvimgcodec.Decoder(nvimgcodec.NVIMGCODEC_DEVICE_CPU_ONLY, max_num_cpu_threads=1, backends=cpu)
            as_stored = nvimgcodec.DecodeParams(apply_exif_orientation=False)
    except (ImportError, RuntimeError, AttributeError):
        return None
    import numpy as np

    def decode(data: bytes, edges: tuple[int, int, int, int]) -> npt.NDArray[np.uint8] | None:
        try:
            part = nvimgcodec.CodeStream(data).get_sub_code_stream(region=nvimgcodec.Region(*edges))
            image = decoder.decode(part, params=as_stored)
        except RuntimeError:  # a kind of JPEG that it does not know
            return None
        return None if image is None else np.asarray(image, np.uint8)

    return decode


@contextlib.contextmanager
def _silent_errors() -> Iterator[None]:
    """Discards what libraries write to the error output."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


def _in_rgb(image: Image) -> Image:
    """Raises ValueError if the values of black and white are not defined."""
    has_16_bits = image.mode == "I" and image.format in ("PPM", "PNG")  # their numbers end at 65535
    if image.mode.startswith("I;16") or has_16_bits:
        import numpy as np
        from PIL.Image import fromarray

        return fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, which does not define black and white")
    return image.convert("RGB")
