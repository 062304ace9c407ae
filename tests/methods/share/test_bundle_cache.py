"""DeltaCache: deltas used last, under a cap of bytes, for any number of threads."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.cache import DeltaCache
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share

NAMES = ["a", "b", "c", "d"]


@pytest.fixture
def bundle(tmp_path):
    """Four domains whose deltas have one size."""
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
    )
    plan = plan_sharing(model, "top", 0.5, example_input=torch.zeros(1, 1, 8, 8))
    wf.save(share(model, dict.fromkeys(NAMES, 3), plan), tmp_path)
    return Bundle(tmp_path)


@pytest.fixture
def size(bundle):
    (size,) = set(bundle.sizes().domains.values())
    return size


@pytest.fixture
def loads(bundle, monkeypatch):
    """Names in the order in which the bundle was asked for them."""
    asked, delta = [], bundle.delta
    monkeypatch.setattr(bundle, "delta", lambda name: (asked.append(name), delta(name))[1])
    return asked


def test_it_gives_what_the_bundle_gives(bundle, size):
    cache = DeltaCache(bundle, size)
    for name in NAMES:
        found, wanted = cache.get(name), bundle.delta(name)
        assert list(found) == list(wanted)
        assert all(torch.equal(found[n], t) for n, t in wanted.items())


def test_the_least_recently_used_goes_first(bundle, size, loads):
    cache = DeltaCache(bundle, 2 * size + 1)
    for name in "abacab":
        cache.get(name)
    assert loads == ["a", "b", "c", "b"]
    counts = cache.counts
    assert (counts.hits, counts.misses, counts.evictions) == (2, 4, 2)
    assert counts.resident == 2 * size


def test_a_delta_above_the_cap_is_an_error_and_evicts_nothing(bundle, size, loads):
    with pytest.raises(ValueError, match=f"'a' has {size} bytes, more than max_bytes={size - 1}"):
        DeltaCache(bundle, size - 1).get("a")
    assert not loads
    with pytest.raises(ValueError, match=r"max_bytes=0; the cap is 1 byte or more"):
        DeltaCache(bundle, 0)


def test_an_unknown_domain_evicts_nothing(bundle, size):
    cache = DeltaCache(bundle, size)
    cache.get("a")
    with pytest.raises(KeyError, match="domain='e'; the domains are a, b, c, d"):
        cache.get("e")
    assert cache.counts.resident == size and cache.counts.misses == 1


def test_a_failed_load_is_told_and_forgotten(bundle, size, monkeypatch):
    cache = DeltaCache(bundle, size)
    with monkeypatch.context() as patch:
        patch.setattr(bundle, "delta", lambda name: (_ for _ in ()).throw(ValueError("damaged")))
        with pytest.raises(ValueError, match="damaged"):
            cache.get("a")
    assert cache.counts.resident == 0
    assert cache.get("a")


def test_threads_that_miss_one_delta_load_it_once(bundle, size, loads, monkeypatch):
    cache = DeltaCache(bundle, 2 * size)
    cache.get("b")
    go, delta = threading.Event(), bundle.delta
    monkeypatch.setattr(bundle, "delta", lambda name: (go.wait(30), delta(name))[1])
    with ThreadPoolExecutor(5) as pool:
        waiting = [pool.submit(cache.get, "a") for _ in range(4)]
        assert cache.get("b"), "what is there is given while another delta loads"
        assert not any(future.done() for future in waiting)
        go.set()
        found = [future.result() for future in waiting]
    assert loads == ["b", "a"] and all(delta is found[0] for delta in found)


def test_the_cap_holds_under_many_threads(bundle, size):
    cache = DeltaCache(bundle, 2 * size)
    wanted = {name: bundle.delta(name) for name in NAMES}

    def use(seed):
        generator = torch.Generator().manual_seed(seed)
        for i in torch.randint(len(NAMES), (100,), generator=generator).tolist():
            found = cache.get(NAMES[i])
            assert cache.counts.resident <= 2 * size
            assert all(torch.equal(found[n], t) for n, t in wanted[NAMES[i]].items())

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(use, range(8)))
    counts = cache.counts
    assert counts.hits + counts.misses == 800
    assert counts.resident == 2 * size == (counts.misses - counts.evictions) * size
