import asyncio

import pytest
import torch

from weightfold.serve.batcher import Batcher, Refused

FOREVER_MS = 1e9


def image(engine, domain, seed):
    shape = engine.preprocessing(domain).image_shape
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def batcher(engine, max_batch=32, max_wait_ms=0.0, max_queue=64, **options):
    return Batcher(
        engine, max_batch=max_batch, max_wait_ms=max_wait_ms, max_queue=max_queue, **options
    )


async def held(engine, open_batcher):
    """A first request that occupies the engine, so that others collect behind it."""
    engine.gate.clear()
    first = asyncio.ensure_future(open_batcher.predict([image(engine, "cars", 99)], "cars"))
    while not engine.batches:
        await asyncio.sleep(0.001)
    return first


def test_requests_of_many_domains_are_one_call(engine):
    seen = []

    async def run():
        async with batcher(engine, observe=lambda *batch: seen.append(batch[:2])) as open_batcher:
            first = await held(engine, open_batcher)
            names = ["birds", "cars", "digits"] * 3
            images = [image(engine, name, seed) for seed, name in enumerate(names)]
            pairs = zip(images, names, strict=True)
            asked = [asyncio.ensure_future(open_batcher.predict([i], n)) for i, n in pairs]
            await asyncio.sleep(0)
            assert open_batcher.waiting == 9
            engine.gate.set()
            for (answer,), given, name in zip(
                await asyncio.gather(*asked), images, names, strict=True
            ):
                assert torch.equal(answer, engine.one(given, name))
            await first

    asyncio.run(run())
    assert engine.batches == [["cars"], ["birds", "cars", "digits"] * 3]
    assert seen == [(1, 1), (9, 3)]


def test_a_full_batch_does_not_wait_and_is_never_exceeded(engine):
    async def run():
        async with batcher(engine, max_batch=2, max_wait_ms=FOREVER_MS) as open_batcher:
            images = [image(engine, "birds", seed) for seed in range(4)]
            return await open_batcher.predict(images, "birds")

    assert len(asyncio.run(run())) == 4
    assert engine.batches == [["birds"] * 2] * 2


def test_a_lone_image_does_not_wait_forever(engine):
    async def run():
        async with batcher(engine, max_wait_ms=1.0) as open_batcher:
            return await open_batcher.predict([image(engine, "birds", 0)], "birds")

    assert len(asyncio.run(run())) == 1


def test_a_failure_stays_with_its_request(engine):
    async def run():
        async with batcher(engine) as open_batcher:
            first = await held(engine, open_batcher)
            names = ["birds", "cars", "broken", "digits", "birds", "broken", "cars"]
            images = [image(engine, name, seed) for seed, name in enumerate(names)]
            pairs = zip(images, names, strict=True)
            asked = [asyncio.ensure_future(open_batcher.predict([i], n)) for i, n in pairs]
            await asyncio.sleep(0)
            engine.gate.set()
            answers = await asyncio.gather(*asked, return_exceptions=True)
            await first
            assert open_batcher.accepting
        for given, name, answer in zip(images, names, answers, strict=True):
            if name == "broken":
                assert isinstance(answer, RuntimeError) and str(answer) == "broken weights"
            else:
                assert torch.equal(answer[0], engine.one(given, name))

    asyncio.run(run())


def test_an_engine_that_answers_too_little(engine):
    engine.predict = lambda images, domains: []

    async def run():
        async with batcher(engine) as open_batcher:
            await open_batcher.predict([image(engine, "birds", 0)], "birds")

    with pytest.raises(RuntimeError, match="answered 0 of 1"):
        asyncio.run(run())


def test_a_full_queue_refuses(engine):
    async def run():
        async with batcher(engine, max_queue=3) as open_batcher:
            first = await held(engine, open_batcher)
            one = image(engine, "birds", 0)
            second = asyncio.ensure_future(open_batcher.predict([one, one], "birds"))
            await asyncio.sleep(0)
            with pytest.raises(Refused, match="2 images wait already, of 3"):
                await open_batcher.predict([one, one], "birds")
            third = asyncio.ensure_future(open_batcher.predict([one], "birds"))
            engine.gate.set()
            assert [len(await asked) for asked in (first, second, third)] == [1, 2, 1]

    asyncio.run(run())


def test_cancelled_images_are_not_computed_and_free_their_place(engine):
    async def run():
        async with batcher(engine, max_queue=2) as open_batcher:
            first = await held(engine, open_batcher)
            for _ in range(5):
                one = image(engine, "birds", 0)
                asked = asyncio.ensure_future(open_batcher.predict([one, one], "birds"))
                await asyncio.sleep(0)
                asked.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asked
            assert open_batcher.waiting == 0
            digits = open_batcher.predict([image(engine, "digits", 0)], "digits")
            kept = asyncio.ensure_future(digits)
            engine.gate.set()
            await asyncio.gather(first, kept)

    asyncio.run(run())
    assert engine.batches == [["cars"], ["digits"]]


def test_cancelled_while_computed(engine):
    async def run():
        async with batcher(engine) as open_batcher:
            first = await held(engine, open_batcher)
            first.cancel()
            await asyncio.sleep(0)
            engine.gate.set()
            return await open_batcher.predict([image(engine, "birds", 0)], "birds")

    assert len(asyncio.run(run())) == 1


def test_closing_computes_what_waits_and_refuses_the_rest(engine):
    async def run():
        open_batcher = batcher(engine, max_batch=2, max_wait_ms=FOREVER_MS)
        with pytest.raises(Refused, match="starting"):
            await open_batcher.predict([image(engine, "birds", 0)], "birds")
        async with open_batcher:
            images = [image(engine, "birds", seed) for seed in range(5)]
            asked = asyncio.ensure_future(open_batcher.predict(images, "birds"))
            await asyncio.sleep(0)
        assert not open_batcher.accepting
        with pytest.raises(Refused, match="shutting down"):
            await open_batcher.predict(images, "birds")
        return await asked

    assert len(asyncio.run(run())) == 5
