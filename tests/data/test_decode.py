"""The policy of `weightfold.data.decode`, read off images whose pixels are known."""

import io
import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps, TiffImagePlugin

from weightfold.data.decode import (
    ENDINGS,
    FORMATS,
    MAX_PIXELS,
    UndecodableImage,
    count_pixels,
    decode,
)

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (5, 7, 3), dtype=np.uint8)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data, channels=3, **options):
    """(H, W, C)"""
    return decode(data, channels=channels, **options).permute(1, 2, 0).numpy()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_all_eight_orientations(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {}
    data = saved(Image.fromarray(PIXELS), kind, exif=exif, **options)
    upright = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    assert np.array_equal(read(data), np.asarray(upright))
    assert (read(data).shape == PIXELS.shape) == (orientation < 5)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0II*\0\xff\xff\xff\xff", b"\xff" * 40])
def test_damaged_exif_turns_nothing(exif):
    data = saved(Image.fromarray(PIXELS), "PNG", exif=exif)
    assert np.array_equal(read(data), PIXELS)


def test_an_orientation_that_is_none_turns_nothing():
    exif = Image.Exif()
    exif[0x0112] = 77
    assert np.array_equal(read(saved(Image.fromarray(PIXELS), "PNG", exif=exif)), PIXELS)


def test_transparency_is_dropped():
    alpha = RANDOM.integers(0, 256, (5, 7, 1), dtype=np.uint8)
    data = saved(Image.fromarray(np.concatenate([PIXELS, alpha], 2)), "PNG")
    assert np.array_equal(read(data), PIXELS)
    gray = np.concatenate([PIXELS[..., :1], alpha], 2)
    data = saved(Image.fromarray(gray, "LA"), "PNG")
    assert np.array_equal(read(data, channels=1), PIXELS[..., :1])


@pytest.mark.parametrize("transparency", [3, bytes(range(16))])
def test_a_palette_gives_its_colors_without_a_warning(transparency):
    image = Image.fromarray(PIXELS).quantize(16)
    data = saved(image, "PNG", transparency=transparency)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert np.array_equal(read(data), np.asarray(image.convert("RGB")))


def test_cmyk_is_converted():
    image = Image.fromarray(PIXELS).convert("CMYK")
    assert np.array_equal(read(saved(image, "TIFF")), np.asarray(image.convert("RGB")))


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("L", (6, 4), value) for value in (50, 100, 150)]
    for kind in ("GIF", "PNG", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert (read(data) == 50).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bits_keep_the_high_byte(kind):
    deep = np.array([[0, 255, 256, 4095], [32767, 32768, 65279, 65535]], dtype=np.uint16)
    data = saved(Image.fromarray(deep), kind)
    assert np.array_equal(read(data, channels=1)[..., 0], deep >> 8)
    assert np.array_equal(read(data), np.stack([deep >> 8] * 3, 2))


@pytest.mark.parametrize(("color", "channels"), [(2, 3), (4, 2), (6, 4)])
def test_16_bits_of_several_channels_keep_the_high_byte(color, channels):
    deep = RANDOM.integers(0, 65536, (5, 7, channels))
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    start = chunk(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, color, 0, 0, 0))
    end = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    expected = deep[..., :3] if channels > 2 else deep[..., [0, 0, 0]]
    assert np.array_equal(read(b"\x89PNG\r\n\x1a\n" + start + end), expected >> 8)


def test_16_bits_where_zero_is_white_are_refused():
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[262] = 0
    deep = Image.fromarray(np.arange(12, dtype=np.uint16).reshape(3, 4))
    data = saved(deep, "TIFF", tiffinfo=tags)
    if Image.open(io.BytesIO(data)).tag_v2[262] == 1:
        data = data.replace(b"\x06\x01\x03\0\1\0\0\0\1\0", b"\x06\x01\x03\0\1\0\0\0\0\0")
    with pytest.raises(UndecodableImage, match="without a known white"):
        read(data)


@pytest.mark.parametrize("mode", ["F", "I"])
def test_numbers_without_a_white_are_refused(mode):
    with pytest.raises(UndecodableImage, match="mode " + mode):
        read(saved(Image.new(mode, (4, 4), 100), "TIFF"))


def test_the_name_does_not_count_but_the_content(tmp_path):
    path = tmp_path / "photo.jpg"
    path.write_bytes(saved(Image.fromarray(PIXELS), "PNG"))
    assert np.array_equal(read(path), PIXELS)


def test_a_long_strip_is_not_scaled_up_to_gigabytes():
    data = saved(Image.new("L", (100_000, 1)), "PNG")
    assert read(data).shape == (1, 100_000, 3)
    with pytest.raises(UndecodableImage, match=r"100000 x 1 pixels.* scaled to 64"):
        read(data, size=64)
    assert read(data, size=8).shape == (8, 8, 3)
    assert count_pixels(data, size=8) == 6_400_000
    with pytest.raises(UndecodableImage, match=r"409600000 with its shorter side scaled to 64"):
        count_pixels(data, size=64)


def test_pixels_are_counted_by_the_header():
    data = saved(Image.new("L", (300, 200)), "PNG")
    assert count_pixels(data[:60], size=100) == 60_000
    assert count_pixels(data, size=400) == 240_000
    with pytest.raises(UndecodableImage, match="at most 59999"):
        count_pixels(data, size=100, max_pixels=59_999)
    with pytest.raises(UndecodableImage, match="not an image"):
        count_pixels(b"none", size=100)


def test_a_path_that_is_no_file_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="gone"):
        read(tmp_path / "gone.png")
    with pytest.raises(ValueError, match="no regular file"):
        read(tmp_path)


def test_the_limit_is_that_of_pillow():
    assert MAX_PIXELS == 2 * Image.MAX_IMAGE_PIXELS
    known = {end for end, kind in Image.registered_extensions().items() if kind in FORMATS}
    # PFM holds floating point.
    assert set(ENDINGS) == known - {".pfm"}
