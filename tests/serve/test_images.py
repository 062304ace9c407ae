import io
import struct
import zlib

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from weightfold.data.batches import Batches
from weightfold.data.decode import UndecodableImage, decode
from weightfold.data.files import ImageFiles
from weightfold.serve.engine import Preprocessing
from weightfold.serve.images import check_servable, prepare

RGB = Preprocessing((3, 16, 16), (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
GRAY = Preprocessing((1, 8, 8), (0.5,), (0.2,))


def noise(mode="RGB", size=(23, 17), seed=0):
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], channels))
    bands = [Image.fromarray(band.astype(np.uint8)) for band in np.moveaxis(pixels, 2, 0)]
    return Image.merge(mode, bands)


def saved(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


TURNED = Image.Exif()
TURNED[0x0112] = 6

CASES = {
    "png": saved(noise(), "PNG"),
    "jpeg": saved(noise(), "JPEG"),
    "progressive": saved(noise(), "JPEG", progressive=True),
    "turned by EXIF": saved(noise(), "JPEG", exif=TURNED),
    "webp": saved(noise(), "WEBP"),
    "bmp": saved(noise(), "BMP"),
    "ppm": saved(noise(), "PPM"),
    "tiff": saved(noise(), "TIFF", compression="tiff_lzw"),
    "gray": saved(noise("L"), "PNG"),
    "gray and alpha": saved(noise("LA"), "PNG"),
    "alpha": saved(noise("RGBA"), "PNG"),
    "cmyk": saved(noise("CMYK"), "JPEG"),
    "palette": saved(noise().quantize(16), "PNG"),
    "bilevel": saved(noise("L").convert("1"), "PNG"),
    "animated gif": saved(noise(), "GIF", save_all=True, append_images=[noise(seed=1)]),
    "animated webp": saved(noise(), "WEBP", save_all=True, append_images=[noise(seed=1)]),
    "upright": saved(noise(size=(17, 40)), "PNG"),
    "of that size": saved(noise(size=(16, 16)), "PNG"),
    "one pixel": saved(noise(size=(1, 1)), "PNG"),
}


@pytest.mark.parametrize("name", CASES)
def test_as_in_training(name, tmp_path):
    path = tmp_path / "image"
    path.write_bytes(CASES[name])
    files = ImageFiles([path], torch.tensor([0]), 16, 0)
    options = {"mean": RGB.mean, "std": RGB.std, "augment": None, "seed": 0}
    ((wanted, _),) = Batches(files, batch_size=1, **options).epoch(0)
    given = prepare(CASES[name], RGB, max_pixels=1000)
    assert torch.equal(given, wanted[0])


@pytest.mark.filterwarnings("ignore:Palette images with Transparency")
def test_transparent_palette_as_in_training(tmp_path):
    data = saved(noise().quantize(16), "PNG", transparency=bytes(range(16)))
    (tmp_path / "image").write_bytes(data)
    files = ImageFiles([tmp_path / "image"], torch.tensor([0]), 16, 0)
    plain = Preprocessing((3, 16, 16), (0,) * 3, (1 / 255,) * 3)
    square = prepare(data, plain, max_pixels=999)
    assert torch.equal(square, files.images[0].float())


@pytest.mark.parametrize("name", CASES)
def test_gray(name):
    gray = prepare(CASES[name], GRAY, max_pixels=1000)
    assert gray.shape == (1, 8, 8) and gray.dtype == torch.float32 and gray.isfinite().all()


def test_gray_pixels():
    image = noise("L", size=(5, 5))
    decoded = decode(saved(image, "PNG"), channels=1, max_pixels=25)
    assert decoded.tolist() == [np.asarray(image).tolist()]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
@pytest.mark.parametrize("channels", [1, 3])
def test_deep_pixels_keep_their_high_byte(kind, channels):
    ramp = np.arange(256).reshape(16, 16)
    deep = Image.fromarray((ramp * 257).astype(np.uint16))
    decoded = decode(saved(deep, kind), channels=channels, max_pixels=999)
    assert decoded.tolist() == [ramp.tolist()] * channels


def test_floating_pixels_are_refused():
    with pytest.raises(UndecodableImage, match="more than 8 bits"):
        decode(saved(Image.new("F", (4, 4)), "TIFF"), channels=3, max_pixels=999)


@pytest.mark.parametrize("data", [b"", b"hello", b"<svg/>", b"%!PS-Adobe-3.0 EPSF-3.0", b"\0" * 99])
def test_no_image(data):
    with pytest.raises(UndecodableImage, match="not an image in one of JPEG, PNG"):
        decode(data, channels=3, max_pixels=999)


@pytest.mark.parametrize("name", ["png", "jpeg", "webp", "bmp", "ppm", "tiff", "animated gif"])
def test_cut_short(name):
    data = CASES[name]
    with pytest.raises(UndecodableImage, match=r"damaged or cut short|not an image"):
        decode(data[: len(data) // 4], channels=3, max_pixels=999)


def bomb(width, height):
    """A PNG that announces so many pixels and has none."""

    def chunk(kind, data):
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# The second makes Pillow warn, the third raise.
@pytest.mark.parametrize("side", [101, 10_000, 60_000])
def test_too_many_pixels_are_never_unpacked(side):
    with pytest.raises(UndecodableImage, match="pixels"):
        decode(bomb(side, side), channels=3, max_pixels=10_000)


def test_as_many_pixels_as_allowed():
    data = saved(noise(size=(20, 50)), "PNG")
    assert decode(data, channels=3, max_pixels=1000).shape == (3, 50, 20)
    with pytest.raises(UndecodableImage, match="20 x 50 pixels; at most 999"):
        decode(data, channels=3, max_pixels=999)


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(sorted(CASES)), st.data())
def test_damage_is_decoded_or_refused(name, data):
    image = bytearray(CASES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        image[data.draw(st.integers(0, len(image) - 1))] = data.draw(st.integers(0, 255))
    try:
        decoded = decode(bytes(image), channels=3, max_pixels=2000)
    except UndecodableImage:
        return
    assert decoded.dtype == torch.uint8 and decoded.shape[0] == 3
    assert decoded.shape[1] * decoded.shape[2] <= 2000


@pytest.mark.parametrize("shape", [(4, 8, 8), (3, 8, 9)])
def test_unservable(shape):
    with pytest.raises(ValueError, match=r"'birds'.*only \(1, size, size\)"):
        check_servable("birds", shape)
