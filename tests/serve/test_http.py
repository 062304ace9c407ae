import asyncio
from contextlib import asynccontextmanager

import httpx
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families

from weightfold.serve.http import make_app
from weightfold.serve.images import prepare
from weightfold.serve.limits import Limits

QUICK = Limits(max_wait_ms=0.0)


@asynccontextmanager
async def running(engine, limits=QUICK):
    app = make_app(engine, limits)
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://server") as client,
    ):
        yield client


def ask(engine, method, url, limits=QUICK, **options):
    """One request to a server of its own."""

    async def run():
        async with running(engine, limits) as client:
            return await client.request(method, url, **options)

    return asyncio.run(run())


def predict(engine, domain="birds", limits=QUICK, query="", **options):
    return ask(engine, "POST", f"/v1/domains/{domain}/predict{query}", limits, **options)


def wanted(engine, domain, data, top=5):
    """The answer that the engine gives without a server."""
    known = engine.preprocessing(domain)
    image = prepare(data, known, max_pixels=10**6)
    answer, classes = engine.one(image, domain), engine.classes(domain)
    order = sorted(range(len(classes)), key=lambda index: -answer[index].item())[:top]
    return [
        {"class": index, "label": classes[index], "probability": answer[index].item()}
        for index in order
    ]


@pytest.mark.parametrize("domain", ["birds", "cars", "digits"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_one_image(engine, picture, domain, kind):
    data = picture(kind=kind)
    answer = predict(
        engine, domain, content=data, headers={"content-type": f"image/{kind.lower()}"}
    )
    assert answer.status_code == 200
    assert answer.json() == {"domain": domain, "predictions": wanted(engine, domain, data)}


@pytest.mark.parametrize("headers", [{}, {"content-type": "application/octet-stream"}])
def test_one_image_of_unknown_type(engine, picture, headers):
    assert predict(engine, content=picture(), headers=headers).status_code == 200


@pytest.mark.parametrize("top", [1, 3, 10, 11, 10**30])
def test_top(engine, picture, top):
    answer = predict(engine, "digits", content=picture(), query=f"?top={top}")
    assert answer.json()["predictions"] == wanted(engine, "digits", picture(), top)


@pytest.mark.parametrize("top", ["0", "-1", "x", "1.5", "", "٣", "9" * 5000])
def test_wrong_top(engine, picture, top):
    answer = predict(engine, content=picture(), query=f"?top={top}")
    assert answer.status_code == 400 and "positive number" in answer.json()["error"]


def test_several_images(engine, picture):
    pictures = [picture(seed) for seed in range(5)]
    files = [("images", (f"{seed}.png", data)) for seed, data in enumerate(pictures)]
    answer = predict(engine, files=files)
    assert answer.json() == {
        "domain": "birds",
        "images": [
            {"file": f"{seed}.png", "predictions": wanted(engine, "birds", data)}
            for seed, data in enumerate(pictures)
        ],
    }


@pytest.mark.parametrize(
    ("options", "limits", "text"),
    [
        ({"content": b""}, QUICK, "no image"),
        ({"files": {"a": ("a", b"")}, "data": {"note": "b"}}, QUICK, "Too many fields"),
        ({"files": [("a", ("a", b"1"))] * 3}, Limits(max_images=2), "Too many files"),
        (
            {"content": b"--x", "headers": {"content-type": "multipart/form-data"}},
            QUICK,
            "boundary",
        ),
        (
            {
                "content": b"nonsense",
                "headers": {"content-type": "multipart/form-data; boundary=x"},
            },
            QUICK,
            "Invalid multipart",
        ),
    ],
)
def test_wrong_bodies(engine, options, limits, text):
    answer = predict(engine, limits=limits, **options)
    assert answer.status_code == 400 and text in answer.json()["error"]
    assert engine.batches == []


def test_unknown_domain(engine, picture):
    answer = predict(engine, "brids", content=picture())
    assert answer.status_code == 404
    assert answer.json()["error"] == (
        "no domain 'brids'; did you mean 'birds'? there are: birds, cars, digits, broken"
    )


@pytest.mark.parametrize(
    "kind", ["application/json", "application/x-www-form-urlencoded", "text/x"]
)
def test_wrong_content_type(engine, picture, kind):
    answer = predict(engine, content=picture(), headers={"content-type": kind})
    assert answer.status_code == 415 and kind in answer.json()["error"]


def test_undecodable_image(engine, picture):
    answer = predict(engine, content=b"no image")
    assert answer.status_code == 422 and "body: not an image in one of" in answer.json()["error"]
    files = [("a", ("good.png", picture())), ("a", ("bad.png", picture()[:-200]))]
    answer = predict(engine, files=files)
    assert answer.status_code == 422
    assert answer.json()["error"].startswith("bad.png: the image is damaged or cut short")


def test_too_many_pixels(engine, picture):
    answer = predict(engine, content=picture(size=(31, 10)), limits=Limits(max_pixels=309))
    assert answer.status_code == 422 and "31 x 10" in answer.json()["error"]


def test_body_announced_too_large_is_not_read(engine):
    async def never():
        raise AssertionError("read")
        yield b""

    limits = Limits(max_bytes=1000)
    headers = {"content-length": "1001"}
    answer = predict(engine, content=never(), limits=limits, headers=headers)
    assert answer.status_code == 413 and "1000 bytes" in answer.json()["error"]


@pytest.mark.parametrize("kind", ["image/png", "multipart/form-data; boundary=x"])
def test_unannounced_body_is_read_to_the_limit_only(engine, kind):
    sent = 0

    async def endless():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\n'
        while True:
            sent += 100
            yield b"a" * 100

    limits, headers = Limits(max_bytes=1000), {"content-type": kind}
    answer = predict(engine, content=endless(), limits=limits, headers=headers)
    assert answer.status_code == 413 and answer.headers["connection"] == "close"
    assert sent <= 1100


def test_body_of_exactly_the_limit(engine, picture):
    data = picture()
    assert predict(engine, content=data, limits=Limits(max_bytes=len(data))).status_code == 200
    assert predict(engine, content=data, limits=Limits(max_bytes=len(data) - 1)).status_code == 413


def test_a_slow_upload_ends(engine):
    async def stuck():
        yield b"a"
        await asyncio.Event().wait()

    answer = predict(engine, content=stuck(), limits=Limits(timeout_s=0.01))
    assert answer.status_code == 408 and "0.01 s" in answer.json()["error"]


def test_a_stuck_engine_ends(engine, picture):
    engine.gate.clear()

    async def run():
        async with running(engine, Limits(timeout_s=0.05)) as client:
            answer = await client.post("/v1/domains/birds/predict", content=picture())
            engine.gate.set()
            return answer

    answer = asyncio.run(run())
    assert answer.status_code == 503 and "no answer within 0.05 s" in answer.json()["error"]


def test_a_failing_engine(engine, picture):
    answer = predict(engine, "broken", content=picture())
    assert answer.status_code == 500
    assert answer.json() == {"error": "the server could not answer; its log says why"}


async def until(ready):
    while not ready():
        await asyncio.sleep(0.001)


@pytest.mark.parametrize(
    ("limits", "text"),
    [
        (Limits(max_queue=2, max_images=1), "wait already, of 2"),
        (Limits(max_requests=3), "too many requests"),
    ],
)
def test_too_much_to_do(engine, picture, limits, text):
    async def run():
        async with running(engine, limits) as client:
            engine.gate.clear()
            path = "/v1/domains/birds/predict"
            asked = [asyncio.ensure_future(client.post(path, content=picture()))]
            await until(lambda: engine.batches)
            asked += [asyncio.ensure_future(client.post(path, content=picture())) for _ in "12"]

            async def under_way():
                page = (await client.get("/metrics")).text
                waiting = "weightfold_images_waiting 2.0" in page
                return waiting and "weightfold_requests_under_way 3.0" in page

            while not await under_way():
                await asyncio.sleep(0.001)
            refused = await client.post(path, content=picture())
            assert refused.status_code == 503 and text in refused.json()["error"]
            assert refused.headers["retry-after"] == "1"
            assert (await client.get("/healthz")).status_code == 200
            engine.gate.set()
            assert [(await answer).status_code for answer in asked] == [200] * 3
            assert (await client.post(path, content=picture())).status_code == 200

    asyncio.run(run())


def test_domains(engine):
    listed = ask(engine, "GET", "/v1/domains").json()["domains"]
    assert [each["name"] for each in listed] == ["birds", "cars", "digits", "broken"]
    assert listed[0] == {
        "name": "birds",
        "num_classes": 3,
        "classes": ["crow", "kite", "wren"],
        "preprocessing": {
            "image_shape": [3, 16, 16],
            "mean": [0.5, 0.4, 0.3],
            "std": [0.2, 0.25, 0.3],
        },
    }


def test_ready_only_between_start_and_shutdown(engine, picture):
    app = make_app(engine)
    transport = httpx.ASGITransport(app)

    async def run():
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:

            async def states():
                asked = [await client.get(path) for path in ("/healthz", "/readyz")]
                asked.append(await client.post("/v1/domains/birds/predict", content=picture()))
                return [answer.status_code for answer in asked]

            assert await states() == [200, 503, 503]
            async with app.router.lifespan_context(app):
                assert await states() == [200, 200, 200]
            assert await states() == [200, 503, 503]

    asyncio.run(run())


def test_wrong_paths_and_methods(engine):
    for method, path, status in [("GET", "/", 404), ("GET", "/v1/domains/birds/predict", 405)]:
        answer = ask(engine, method, path)
        assert answer.status_code == status and "error" in answer.json()


def test_metrics(engine, picture):
    async def run():
        async with running(engine) as client:
            for domain, body in [("birds", picture()), ("birds", b"?"), ("x" * 99, b"?")]:
                await client.post(f"/v1/domains/{domain}/predict", content=body)
            page = await client.get("/metrics")
            assert page.headers["content-type"].startswith("text/plain")
            return page.text

    page = asyncio.run(run())
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    }
    counted = {
        key: value for key, value in samples.items() if key[0] == "weightfold_requests_total"
    }
    assert counted == {
        ("weightfold_requests_total", "birds", "200"): 1,
        ("weightfold_requests_total", "birds", "422"): 1,
        ("weightfold_requests_total", "(none)", "404"): 1,
    }
    assert samples["weightfold_batch_images_sum",] == 1
    assert samples["weightfold_engine_resident",] == 2
    assert samples["weightfold_engine_hits",] == 7


def test_apps_share_nothing(engine, picture):
    assert predict(engine, content=picture()).status_code == 200
    page = ask(engine, "GET", "/metrics").text
    assert "weightfold_batch_images_count 0.0" in page


def test_a_domain_without_image_files_is_refused_at_the_start(engine):
    prepared = engine.preprocessing("birds")
    engine.preprocessing = lambda name: type(prepared)((4, 8, 8), (0.5,) * 4, (0.2,) * 4)
    with pytest.raises(ValueError, match="domain 'birds' takes images of \\(4, 8, 8\\)"):
        make_app(engine)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"max_batch": 0}, "max_batch=0 must be more than 0"),
        ({"max_wait_ms": -1.0}, "max_wait_ms=-1.0 must be at least 0"),
        ({"timeout_s": float("nan")}, "timeout_s=nan"),
        ({"max_queue": 8, "max_images": 9}, "max_queue=8 cannot hold"),
    ],
)
def test_wrong_limits(options, text):
    with pytest.raises(ValueError, match=text):
        Limits(**options)


def test_answers_do_not_depend_on_company(engine, picture):
    async def run():
        names = ["birds", "cars", "digits", "broken"] * 6
        async with running(engine, Limits(max_batch=5)) as client:
            pairs = enumerate(names)
            asked = [
                client.post(f"/v1/domains/{name}/predict", content=picture(seed))
                for seed, name in pairs
            ]
            answers = await asyncio.gather(*asked)
        for seed, (name, answer) in enumerate(zip(names, answers, strict=True)):
            if name == "broken":
                assert answer.status_code == 500
            else:
                assert answer.json()["predictions"] == wanted(engine, name, picture(seed))

    with torch.inference_mode():
        asyncio.run(run())
