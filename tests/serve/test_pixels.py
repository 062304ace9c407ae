"""Pixels are counted from headers, before anything is unpacked, a request and at once."""

import asyncio
import io
import threading
from functools import partial

import httpx
import pytest
from PIL import Image

from weightfold.data.decode import UndecodableImage, count_pixels
from weightfold.serve.decoders import Decoders
from weightfold.serve.http import make_app
from weightfold.serve.limits import Limits

PATH = "/v1/domains/birds/predict"


def plain(width, height, kind="PNG"):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, kind)
    return file.getvalue()


def post(engine, limits, **options):
    async def run():
        app = make_app(engine, limits)
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
        ):
            return await client.post(PATH, **options)

    return asyncio.run(run())


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM", "TIFF"])
def test_pixels_of_a_header(kind):
    assert count_pixels(plain(40, 50, kind), size=16, max_pixels=2000) == 2000
    with pytest.raises(UndecodableImage, match="40 x 50 pixels; at most 1999"):
        count_pixels(plain(40, 50, kind), size=16, max_pixels=1999)


def test_a_thin_image_counts_as_it_is_scaled():
    """1 x 3,000 pixels, the shorter side scaled to 16, are 16 x 48,000."""
    assert count_pixels(plain(3000, 1), size=16, max_pixels=768_000) == 768_000
    with pytest.raises(UndecodableImage, match="shorter side scaled to 16"):
        count_pixels(plain(3000, 1), size=16, max_pixels=767_999)


@pytest.mark.parametrize("data", [b"", b"hello", plain(9, 9)[:20]])
def test_no_image(data):
    with pytest.raises(UndecodableImage):
        count_pixels(data, size=16, max_pixels=999)


def test_many_large_images_are_refused_before_any_is_unpacked(engine, monkeypatch):
    files = [("images", (f"{i}.png", plain(100, 100))) for i in range(32)]
    unpacked = []
    monkeypatch.setattr(Image.Image, "load", lambda image: unpacked.append(image.size))
    limits = Limits(max_pixels=10_000, max_request_pixels=319_999)
    answer = post(engine, limits, files=files)
    assert answer.status_code == 413
    assert "320000 pixels" in answer.json()["error"] and "319999" in answer.json()["error"]
    assert not unpacked and not engine.batches
    monkeypatch.undo()
    limits = Limits(max_pixels=10_000, max_request_pixels=320_000, max_decoding_pixels=10_000)
    assert post(engine, limits, files=files).status_code == 200


def test_a_domain_of_images_larger_than_those_taken_is_refused_at_the_start(engine):
    with pytest.raises(ValueError, match=r"'birds' takes images of 16 x 16, more than .*=255"):
        make_app(engine, Limits(max_pixels=255))


def test_so_many_pixels_at_once_and_no_more(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    lock, now, most = threading.Lock(), [0], [0]

    def work(pixels):
        with lock:
            now[0] += pixels
            most[0] = max(most[0], now[0])
        threading.Event().wait(0.002)
        with lock:
            now[0] -= pixels
        return pixels

    async def run():
        async with Decoders(10) as decoders:
            asked = [3, 4, 10, 1, 9, 2, 5, 5, 10] * 3
            works = [decoders.run(partial(work, pixels), pixels) for pixels in asked]
            assert await asyncio.gather(*works) == asked

    asyncio.run(run())
    assert 0 < most[0] <= 10 and now[0] == 0


def test_work_of_a_caller_that_left_keeps_its_room_until_its_end():
    gate, begun = threading.Event(), threading.Event()

    def work():
        begun.set()
        assert gate.wait(60)

    async def run():
        async with Decoders(10) as decoders:
            first = asyncio.ensure_future(decoders.run(work, 10))
            while not begun.is_set():
                await asyncio.sleep(0.001)
            first.cancel()
            with pytest.raises(asyncio.CancelledError):
                await first
            second = asyncio.ensure_future(decoders.run(lambda: "done", 1))
            third = asyncio.ensure_future(decoders.run(lambda: "done", 1))
            await asyncio.sleep(0.01)
            assert not second.done()
            third.cancel()
            gate.set()
            assert await second == "done"
            assert await decoders.run(lambda: "all of it", 10) == "all of it"

    asyncio.run(run())


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_request_pixels": 49_999_999}, "max_request_pixels=49999999 .*max_pixels=50000000"),
        ({"max_pixels": 11, "max_decoding_pixels": 10}, "max_decoding_pixels=10 "),
        ({"max_connections": 0}, "max_connections=0"),
        ({"header_s": 0.0}, "header_s=0.0"),
        ({"idle_s": -1.0}, "idle_s=-1.0"),
    ],
)
def test_wrong_limits(options, text):
    with pytest.raises(ValueError, match=text):
        Limits(**options)
