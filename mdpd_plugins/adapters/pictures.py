"""Any picture that Pillow opens -> the upright 8-bit RGB picture that every backbone is given."""

from __future__ import annotations

import numpy as np
from PIL import ExifTags, Image, ImageOps

from mdpd_plugins.registry.errors import DataError

BACKGROUND = (255, 255, 255)
"""What shows through where a picture is transparent: white, as a page or a viewer shows it. Most software that drops
alpha instead uncovers whatever colour lies below it, which is usually black and never meant to be seen."""

_WAY_OUT = "save it as an 8-bit picture whose black and white you choose"


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB: upright, without transparency, and of its values none cut off.

    - It is turned as its EXIF tag says, whether it comes from a file or is an object that still has the tag.
    - Transparent parts show white (`BACKGROUND`).
    - 16- and 32-bit integers are scaled by the bits that are used: full white is the next of 8, 10, 12, ... bits above
      the largest value. So 12 bits in a 16-bit file keep their grey levels, and 16 bits are divided by 65535.
    - Floats from 0 to 1 are scaled; of other floats nothing says what is white.
    - Of several frames the current one is taken: the first, of a file just opened.

    Args:
        image: of any mode and size. It is not changed.

    Raises:
        DataError: negative values, floats outside 0 to 1, or a colour picture of 16 bits a channel of which Pillow
            would keep four bits or fewer. It says what to do, and not which picture it is: the caller knows.
    """
    if image.mode not in _GREY and _is_deep(image):
        _check_deep(image)
    if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # exif_transpose copies what needs no turn, too
        image = ImageOps.exif_transpose(image)
    if image.mode == "F" or image.mode.startswith("I"):
        return _scaled(image).convert("RGB")
    if image.has_transparency_data:
        # Pillow has no way from these to RGBA in one step.
        straight = {"La": "LA", "RGBa": "RGBA"}.get(image.mode)
        coloured = (image.convert(straight) if straight else image).convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", coloured.size, (*BACKGROUND, 255)), coloured).convert("RGB")
    if image.mode == "RGB":
        image.load()
        return image
    return image.convert("RGB")


_GREY = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")


def _is_deep(image: Image.Image) -> bool:
    """Whether it is a file of 16 bits a channel, in colour or with alpha, of which Pillow reads the upper eight."""
    tiles = getattr(image, "tile", None) or []  # what decoders are told to read; gone once the picture is loaded
    given = [tile[3] if isinstance(tile[3], tuple) else (tile[3],) for tile in tiles]
    return any(isinstance(one, str) and ";16" in one for some in given for one in some)


def _check_deep(image: Image.Image) -> None:
    highest = int(np.asarray(image.convert("RGB")).max())
    if highest < 16:  # twelve bits or fewer are used: 16 levels or fewer are left
        raise DataError(
            f"it has 16 bits a channel, and no value uses more than {8 + highest.bit_length()} of them; of such "
            f"pictures Pillow reads the upper 8 bits, which would leave {highest + 1} levels: {_WAY_OUT}"
        )


def _scaled(image: Image.Image) -> Image.Image:
    values = np.asarray(image)
    if not values.size:
        raise DataError("it has no pixels")
    low, high = values.min(), values.max()
    if image.mode == "F":
        # Half a step of 8 bits beyond either end is rounding (of a resized picture, say), and not another range.
        if not (low > -0.5 / 255 and high < 1 + 0.5 / 255):  # also where there are NaN
            raise DataError(
                f"its values are floats from {low:g} to {high:g}, and only 0 to 1 surely is black to white: {_WAY_OUT}"
            )
        white = 1.0
    else:
        if low < 0:
            raise DataError(f"its values go from {low} to {high}, and below 0 there is no black: {_WAY_OUT}")
        bits = max(8, int(high).bit_length())
        white = float(2 ** (bits + bits % 2) - 1)
    grey = np.rint(values.astype(np.float64) * (255 / white)).clip(0, 255).astype(np.uint8)
    return Image.fromarray(grey)


__all__ = ["BACKGROUND", "to_rgb"]
