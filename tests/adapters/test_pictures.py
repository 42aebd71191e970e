"""Whatever a picture is stored as, it becomes the upright 8-bit RGB picture that its viewer sees, or is refused."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mdpd_plugins.adapters.pictures import to_rgb
from mdpd_plugins.adapters.transform import ImageTransform
from mdpd_plugins.data.images import read_image
from mdpd_plugins.registry import DataError

RAMP = np.linspace(0, 1, 64)[None].repeat(8, 0)


def stored(picture: Image.Image, path: Path, **options: Any) -> Path:
    picture.save(path, **options)
    return path


def levels(picture: Image.Image) -> list[int]:
    return np.unique(np.asarray(picture)).tolist()


@pytest.mark.parametrize(
    ("values", "ending"),
    [
        (RAMP.astype(np.float32), "tif"),
        ((RAMP * 65535).astype(np.int32), "tif"),
        ((RAMP * 2**20).astype(np.int32), "tif"),
        ((RAMP * 4095).astype(np.uint16), "png"),
        ((RAMP * 65535).astype(np.uint16), "png"),
        ((RAMP * 1023).astype(np.uint16), "tif"),
        ((RAMP * 255).astype(np.uint8), "png"),
    ],
    ids=lambda v: v if isinstance(v, str) else f"{v.dtype}-{v.max():.0f}",
)
def test_grey_levels_are_kept_whatever_they_are_counted_in(tmp_path: Path, values: np.ndarray, ending: str) -> None:
    picture = read_image(stored(Image.fromarray(values), tmp_path / f"ramp.{ending}"))
    assert picture.mode == "RGB" and len(levels(picture)) == 64
    white = 1 if values.dtype.kind == "f" else 4 ** int(np.ceil(np.log2(int(values.max()) + 1) / 2)) - 1
    expected = np.rint(values * 255.0 / white)
    assert np.abs(np.asarray(picture)[..., 0] - expected).max() <= 0.5 and (picture.getpixel((0, 0)) == (0, 0, 0))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (RAMP.astype(np.float32) * 255, r"floats from 0 to 255, and only 0 to 1 surely is .*8-bit picture"),
        (RAMP.astype(np.float32) - 0.5, "floats from -0.5 to 0.5"),
        (np.where(RAMP > 0.5, np.nan, RAMP).astype(np.float32), "floats from nan to nan"),
        ((RAMP * 1000).astype(np.int32) - 500, "from -500 to 500, and below 0 there is no black"),
    ],
)
def test_values_without_a_known_white_are_refused_by_name(tmp_path: Path, values: np.ndarray, message: str) -> None:
    path = stored(Image.fromarray(values), tmp_path / "scan.tif")
    with pytest.raises(DataError, match=rf"scan\.tif cannot be used: .*{message}"):
        read_image(path)
    with pytest.raises(DataError, match=message):
        to_rgb(Image.open(path))


def test_a_float_picture_that_was_resized_overshoots_and_is_still_one() -> None:
    assert levels(to_rgb(Image.fromarray(np.float32([[-0.001, 1.001]])))) == [0, 255]


def sixteen_bit_colour(values: np.ndarray) -> bytes:
    """A PNG of 16 bits a channel, which Pillow reads and does not write."""
    import struct
    import zlib

    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_colours_of_16_bits_are_read_if_they_use_them() -> None:
    colours = np.stack([RAMP] * 3, 2)
    whole = to_rgb(Image.open(io.BytesIO(sixteen_bit_colour((colours * 65535).astype(np.uint16)))))
    assert len(levels(whole)) == 64 and whole.mode == "RGB"
    with pytest.raises(DataError, match="16 bits a channel, and no value uses more than 12 .* leave 16 levels"):
        to_rgb(Image.open(io.BytesIO(sixteen_bit_colour((colours * 4095).astype(np.uint16)))))


@pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "P", "PA"])
def test_what_is_transparent_shows_white(mode: str) -> None:
    clear = Image.new("RGBA", (2, 1), (0, 0, 0, 0))
    clear.putpixel((1, 0), (0, 0, 0, 255))
    if mode in ("P", "PA"):
        picture = Image.new(mode, (2, 1))
        picture.putpalette([0, 0, 0, 0, 0, 0])
        picture.putpixel((1, 0), 1 if mode == "P" else (1, 255))
        if mode == "P":
            picture.info["transparency"] = 0
    else:
        grey = clear.convert("LA") if mode.upper() == "LA" else clear
        picture = grey if grey.mode == mode else grey.convert(mode)
    assert picture.mode == mode
    assert [to_rgb(picture).getpixel((x, 0)) for x in (0, 1)] == [(255, 255, 255), (0, 0, 0)]


def test_half_transparent_black_is_grey_and_a_colour_key_is_transparent(tmp_path: Path) -> None:
    assert to_rgb(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)
    keyed = stored(Image.new("RGB", (2, 2), (1, 2, 3)), tmp_path / "keyed.png", transparency=(1, 2, 3))
    assert read_image(keyed).getpixel((0, 0)) == (255, 255, 255)


def turned(path: Path) -> Path:
    picture = Image.new("RGB", (6, 2), (0, 0, 0))
    picture.putpixel((0, 0), (255, 255, 255))
    exif = picture.getexif()
    exif[0x0112] = 6  # taken with the camera on its side
    return stored(picture, path, exif=exif)


def test_an_object_is_turned_as_its_file_is_and_only_once(tmp_path: Path) -> None:
    path = turned(tmp_path / "turned.png")
    from_file = read_image(path)
    with Image.open(path) as opened:
        from_object = read_image(opened)
    assert from_file.size == from_object.size == (2, 6) and from_file.tobytes() == from_object.tobytes()
    assert from_file.getpixel((1, 0)) == (255, 255, 255)
    assert to_rgb(from_file).tobytes() == from_file.tobytes()


@pytest.mark.parametrize("mode", ["1", "L", "CMYK", "YCbCr", "HSV", "P", "RGBX"])
def test_other_modes_become_rgb_and_one_pixel_is_enough(mode: str) -> None:
    white = Image.new("RGB", (1, 1), (255, 255, 255))
    picture = to_rgb(Image.new("RGBX", (1, 1), (255, 255, 255, 0)) if mode == "RGBX" else white.convert(mode))
    assert (picture.mode, picture.size) == ("RGB", (1, 1)) and min(picture.getpixel((0, 0))) >= 253


def test_of_several_frames_the_first_is_taken(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (3, 3), colour) for colour in ((255, 0, 0), (0, 255, 0))]
    for ending in ("gif", "tif", "png", "webp"):
        options = {"lossless": True} if ending == "webp" else {}
        path = stored(frames[0], tmp_path / f"two.{ending}", save_all=True, append_images=frames[1:], **options)
        assert read_image(path).getpixel((0, 0)) == (255, 0, 0)


def test_a_backbones_transform_reads_pictures_as_the_data_does(tmp_path: Path) -> None:
    clear = stored(Image.new("RGBA", (5, 3), (0, 0, 0, 0)), tmp_path / "clear.png")
    deep = stored(Image.fromarray((RAMP * 65535).astype(np.int32)), tmp_path / "deep.tif")
    settings = {"size": (4, 4), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bilinear"}
    transform = ImageTransform(**settings)
    for path in (clear, deep, turned(tmp_path / "turned.png")):
        with Image.open(path) as opened:
            given, read = transform([opened]), transform([read_image(path)])
        assert torch.equal(given["image"], read["image"])
    with Image.open(clear) as opened:
        assert transform([opened])["image"].min() == 1
