"""Clients that send nothing, a byte now and then, or too many connections: all of them end."""

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from weightfold.serve.limits import Limits
from weightfold.serve.server import make_server

SOON = {"header_s": 0.2, "idle_s": 0.2, "timeout_s": 0.2, "max_wait_ms": 0.0}
PATIENT = {"header_s": 1e6, "idle_s": 1e6, "timeout_s": 1e6}
POST = b"POST /v1/domains/birds/predict HTTP/1.1\r\nhost: x\r\n"


@asynccontextmanager
async def running(engine, **limits):
    """A server on a free port."""
    server = make_server(engine, port=0, limits=Limits(**limits))
    done = asyncio.ensure_future(server.serve())
    while not server.started:
        await asyncio.sleep(0.001)
    server.address = server.servers[0].sockets[0].getsockname()
    try:
        yield server
    finally:
        server.should_exit = True
        await done


async def drip(writer):
    """A byte now and then, for ever."""
    while True:
        writer.write(b"a")
        await writer.drain()
        await asyncio.sleep(0.01)


async def answered(engine, first, *, dripping, **limits):
    """What a server sends to a client of these first bytes until it closes the connection."""
    async with running(engine, **limits) as server, asyncio.timeout(60):
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(first)
        slowly = asyncio.ensure_future(drip(writer)) if dripping else None
        received = b""
        try:
            while part := await reader.read(2**16):
                received += part
        except ConnectionError:
            pass
        if slowly is not None:
            slowly.cancel()
        writer.close()
        while server.server_state.connections:
            await asyncio.sleep(0.001)
    return received


def test_a_client_that_sends_nothing(engine):
    assert asyncio.run(answered(engine, b"", dripping=False, **{**PATIENT, "header_s": 0.1})) == b""


@pytest.mark.parametrize("dripping", [False, True])
def test_headers_that_never_end(engine, dripping):
    limits = {**PATIENT, "header_s": 0.1}
    answer = asyncio.run(answered(engine, POST + b"x: ", dripping=dripping, **limits))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert "0.1 s" in json.loads(answer.partition(b"\r\n\r\n")[2])["error"]


@pytest.mark.parametrize("dripping", [False, True])
def test_a_body_that_never_ends(engine, dripping):
    first = POST + b"content-length: 1000000\r\n\r\n"
    limits = {**PATIENT, "timeout_s": 0.1, "header_s": 0.1}
    answer = asyncio.run(answered(engine, first, dripping=dripping, **limits))
    assert answer.startswith(b"HTTP/1.1 408 ") and b"did not arrive within 0.1 s" in answer


def test_a_body_that_nobody_reads_and_that_never_ends(engine):
    first = b"GET /healthz HTTP/1.1\r\nhost: x\r\ncontent-length: 1000000\r\n\r\n"
    limits = {**PATIENT, "header_s": 0.1}
    assert b"200 OK" in asyncio.run(answered(engine, first, dripping=True, **limits))


@pytest.mark.parametrize("limit", ["idle_s", "header_s"])
def test_a_client_that_stays_after_its_answer(engine, limit):
    first = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = asyncio.run(answered(engine, first, dripping=False, **{**PATIENT, limit: 0.1}))
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_its_answer(engine, picture):
    engine.classes = lambda domain: tuple(digit * 2_000_000 for digit in "0123456789")

    async def run():
        async with running(engine, **SOON) as server, asyncio.timeout(60):
            reader, writer = await asyncio.open_connection(*server.address, limit=1)
            reader._transport.pause_reading()
            body = picture()
            path = POST.replace(b"birds/predict", b"digits/predict?top=10")
            writer.write(path + f"content-length: {len(body)}\r\n\r\n".encode() + body)
            while not engine.batches:
                await asyncio.sleep(0.001)
            while server.server_state.connections:
                await asyncio.sleep(0.01)
            writer.close()

    asyncio.run(run())


def test_one_connection_too_many(engine, picture):
    async def run():
        async with running(engine, **PATIENT, max_connections=3) as server, asyncio.timeout(60):
            held = [await asyncio.open_connection(*server.address) for _ in range(3)]
            while len(server.server_state.connections) < 3:
                await asyncio.sleep(0.001)
            url = "http://{}:{}/v1/domains/birds/predict".format(*server.address)
            async with httpx.AsyncClient() as client:
                refused = await client.post(url, content=picture())
            assert refused.status_code == 503
            assert refused.json()["error"].startswith("3 connections are open already")
            held[0][1].close()
            while len(server.server_state.connections) > 2:
                await asyncio.sleep(0.001)
            async with httpx.AsyncClient() as client:
                assert (await client.post(url, content=picture())).status_code == 200
            for _, writer in held:
                writer.close()

    asyncio.run(run())


def test_many_that_send_nothing_do_not_keep_others_out_for_ever(engine, picture):
    async def run():
        limits = {**SOON, "timeout_s": 30.0, "max_connections": 20}
        async with running(engine, **limits) as server, asyncio.timeout(60):
            silent = [await asyncio.open_connection(*server.address) for _ in range(60)]
            url = "http://{}:{}/v1/domains/birds/predict".format(*server.address)
            while True:
                async with httpx.AsyncClient() as client:
                    try:
                        answer = await client.post(url, content=picture(), timeout=30)
                    except httpx.TransportError:
                        continue
                if answer.status_code == 200:
                    break
                assert answer.status_code == 503
            for _, writer in silent:
                writer.close()

    asyncio.run(run())


def test_patient_clients_are_served_over_one_connection(engine, picture):
    async def run():
        async with running(engine, **{**SOON, "timeout_s": 30.0}) as server:
            base = "http://{}:{}".format(*server.address)
            async with httpx.AsyncClient(base_url=base) as client:
                for seed in range(5):
                    answer = await client.post(
                        "/v1/domains/birds/predict", content=picture(seed), timeout=30
                    )
                    assert answer.status_code == 200
            assert server.server_state.total_requests == 5

    asyncio.run(run())
