"""The service on uvicorn, over sockets."""

import asyncio
import re
import signal
import socket
import subprocess
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from weightfold.serve.images import prepare
from weightfold.serve.limits import Limits
from weightfold.serve.server import make_server

NAMES = ["birds", "cars", "digits"]


@pytest.fixture
def listening():
    """A socket on a free port, and the address of the server that it will have."""
    with socket.create_server(("127.0.0.1", 0)) as opened:
        yield opened, f"http://127.0.0.1:{opened.getsockname()[1]}"


def server(engine, limits):
    return make_server(engine, limits=limits)


@asynccontextmanager
async def running(engine, listening, limits):
    """The server beside its clients in one loop."""
    run = server(engine, limits)
    done = asyncio.ensure_future(run.serve(sockets=[listening[0]]))
    await until(lambda: run.started)
    try:
        yield run
    finally:
        run.should_exit = True
        await done


async def until(ready):
    while not ready():
        await asyncio.sleep(0.001)


def right(engine, domain, data, answer):
    image = prepare(data, engine.preprocessing(domain), max_pixels=10**6)
    given = {row["class"]: row["probability"] for row in answer.json()["predictions"]}
    return given == dict(enumerate(engine.one(image, domain).tolist()))


def test_concurrent_clients(engine, picture, listening):
    async def client(number):
        async with httpx.AsyncClient(base_url=listening[1]) as connection:
            for turn in range(6):
                seed = 6 * number + turn
                domain = NAMES[seed % 3]
                path = f"/v1/domains/{domain}/predict?top=10"
                answer = await connection.post(path, content=picture(seed), timeout=60)
                assert answer.status_code == 200
                assert right(engine, domain, picture(seed), answer)

    async def run():
        async with running(engine, listening, Limits(max_batch=7)):
            await asyncio.gather(*(client(number) for number in range(12)))

    asyncio.run(run())
    sizes = [len(batch) for batch in engine.batches]
    assert sum(sizes) == 72 and max(sizes) <= 7


def test_sigterm_answers_what_was_accepted(engine, picture, listening):
    """The signal arrives while one image is computed and eleven wait."""
    terminated = []
    before = signal.signal(signal.SIGTERM, lambda *_: terminated.append(1))

    async def run():
        run = server(engine, Limits(max_batch=4))
        engine.gate.clear()
        done = asyncio.ensure_future(run.serve(sockets=[listening[0]]))
        await until(lambda: run.started)
        async with httpx.AsyncClient(base_url=listening[1], timeout=60) as client:
            asked = [
                asyncio.ensure_future(
                    client.post(
                        f"/v1/domains/{NAMES[seed % 3]}/predict?top=10", content=picture(seed)
                    )
                )
                for seed in range(12)
            ]
            accepted = "weightfold_requests_under_way 12.0"
            while accepted not in (await client.get("/metrics")).text:
                await asyncio.sleep(0.001)
            signal.raise_signal(signal.SIGTERM)
            await until(lambda: not run.servers[0].is_serving())
            with pytest.raises(httpx.ConnectError):
                async with httpx.AsyncClient() as late:
                    await late.get(f"{listening[1]}/healthz")
            assert not any(answer.done() for answer in asked)
            engine.gate.set()
            answers = await asyncio.gather(*asked)
        await done
        for seed, answer in enumerate(answers):
            assert answer.status_code == 200
            assert right(engine, NAMES[seed % 3], picture(seed), answer)

    try:
        asyncio.run(run())
    finally:
        signal.signal(signal.SIGTERM, before)
    assert terminated == [1]


def test_a_client_that_leaves_is_not_computed(engine, picture, listening):
    async def run():
        async with (
            running(engine, listening, Limits(max_batch=1)),
            httpx.AsyncClient(base_url=listening[1], timeout=60) as client,
        ):
            engine.gate.clear()
            first = asyncio.ensure_future(
                client.post("/v1/domains/cars/predict", content=picture())
            )
            await until(lambda: engine.batches)
            leaver = asyncio.ensure_future(
                client.post("/v1/domains/birds/predict", content=picture())
            )

            async def waiting(count):
                while (
                    f"weightfold_images_waiting {count}.0"
                    not in (await client.get("/metrics")).text
                ):
                    await asyncio.sleep(0.001)

            await waiting(1)
            leaver.cancel()
            await waiting(0)
            engine.gate.set()
            assert (await first).status_code == 200
            counted = 'weightfold_requests_total{domain="birds",status="499"} 1.0'
            assert counted in (await client.get("/metrics")).text

    asyncio.run(run())
    assert engine.batches == [["cars"]]


def test_a_body_without_end_is_cut_off(engine, listening):
    """After the answer the connection is closed, so that the rest cannot be sent."""

    async def run():
        async with running(engine, listening, Limits(max_bytes=1000)):
            reader, writer = await asyncio.open_connection(*listening[0].getsockname())
            writer.write(b"POST /v1/domains/birds/predict HTTP/1.1\r\nHost: x\r\n")
            writer.write(b"Transfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"a" * 1001 + b"\r\n")
            answer = await reader.read()
            writer.close()
            return answer

    answer = asyncio.run(run())
    assert answer.startswith(b"HTTP/1.1 413 ") and b"more than 1000 bytes" in answer


def test_a_body_announced_too_large_is_answered_after_it_was_sent(engine, picture, listening):
    async def run():
        async with (
            running(engine, listening, Limits(max_bytes=10_000)),
            httpx.AsyncClient(base_url=listening[1], timeout=60) as client,
        ):
            path = "/v1/domains/birds/predict"
            answers = [await client.post(path, content=data) for data in (b"a" * 10**7, picture())]
            return [answer.status_code for answer in answers]

    assert asyncio.run(run()) == [413, 200]


PROGRAM = """
import runpy, sys
from weightfold.serve.server import serve

serve(runpy.run_path(sys.argv[1])["FakeEngine"](), port=0)
print("stopped")
"""


def test_serve(engine, picture):
    command = [sys.executable, "-c", PROGRAM, str(Path(__file__).with_name("conftest.py"))]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        log = [""]
        while not (found := re.search(r"running on (http://127.0.0.1:\d+) ", log[-1])):
            log.append(process.stderr.readline())
            assert log[-1], "".join(log)
        url = f"{found[1]}/v1/domains/birds/predict"
        assert right(engine, "birds", picture(), httpx.post(url, content=picture()))
        process.send_signal(signal.SIGINT)
        output, rest = process.communicate(timeout=60)
    assert (process.returncode, output) == (0, "stopped\n")
    assert "Traceback" not in rest
