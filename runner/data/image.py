"""One image of a data set, decoded when it is known what of it is wanted. Importing this costs nothing."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    from PIL.Image import Image


class BadImage(ValueError):
    """A file that is no image, or not a whole one."""


class EncodedImage:
    """An image in a file's format, or of pixels. Whatever is wrong with it raises BadImage, with where it is."""

    def __init__(
        self, data: bytes | memoryview | Image, where: Callable[[], str] = lambda: "an image in memory"
    ) -> None:
        from PIL import Image

        self.where, self.data = where, None if isinstance(data, Image.Image) else data
        if isinstance(data, Image.Image):
            self.header = data
        else:
            with self._named():
                self.header = Image.open(io.BytesIO(data))  # which reads no pixels yet

    @property
    def size(self) -> tuple[int, int]:
        """Width and height, pixels."""
        return self.header.size

    def rgb(self) -> Image:
        """By Pillow."""
        with self._named():
            return _in_rgb(self.header)

    def pixels(self, reduction: int = 1) -> npt.NDArray[np.uint8]:
        """In RGB, uint8, height x width x 3; both sides divided by `reduction` (1, 2, 4 or 8), rounded up.

        A JPEG is decoded at that scale, and the same pixels as Pillow's, but in three quarters of its time. Raises
        BadImage.
        """
        import numpy as np

        found = self._decoded_by_opencv(reduction)
        if found is not None:
            return found
        image = self.rgb()  # whose word it also is on what is wrong with a JPEG
        return np.array(image if reduction == 1 else image.reduce(reduction))

    def _decoded_by_opencv(self, reduction: int) -> npt.NDArray[np.uint8] | None:
        """Of a JPEG in colours or grey that is not cut off; those for print it takes otherwise than Pillow."""
        if self.data is None or self.header.format != "JPEG" or self.header.mode not in ("RGB", "L"):
            return None
        import cv2
        import numpy as np

        as_reduced = {
            1: cv2.IMREAD_COLOR_RGB,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            8: cv2.IMREAD_REDUCED_COLOR_8,
        }
        data = np.frombuffer(self.data, np.uint8)
        found = cv2.imdecode(data, as_reduced[reduction] | cv2.IMREAD_IGNORE_ORIENTATION)  # as Pillow does
        if found is not None and reduction > 1:
            found = cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
        return None if found is None else np.asarray(found, np.uint8)

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        from PIL import Image, UnidentifiedImageError

        try:
            yield
            return
        except UnidentifiedImageError:
            why = "it is of no known format, or damaged"
        except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
            why = str(error)
        raise BadImage(f"{self.where()} can't be read as an image: {why}")


def _in_rgb(image: Image) -> Image:
    """Raises ValueError for pixels whose black and white are not known."""
    if image.mode.startswith("I;16"):
        import numpy as np
        from PIL.Image import fromarray

        return fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, whose black and white are anyone's guess")
    return image.convert("RGB")
