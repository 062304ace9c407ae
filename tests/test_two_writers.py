"""Nets, bundles and masks, with two processes that write and one that reads whole things."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.files import FolderLockedError, locked
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.probes.tickets import load_masks, load_starts
from weightfold.probes.tickets.masks_file import write_masks

TIMES = 25
"""Changes that each writer makes."""


def model(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
        )


def bits(net: nn.Module) -> dict[str, bytes]:
    return {name: t.detach().numpy().tobytes() for name, t in net.state_dict().items()}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_net(two_writers, tmp_path):
    nets, folder = [model(1), model(2)], tmp_path / "net"
    wf.save(nets[0], folder)

    def writer(first: int) -> Callable[[], None]:
        def write():
            for i in range(TIMES):
                wf.save(nets[(first + i) % 2], folder)

        return write

    def read():
        return bits(wf.load(folder, model()))

    two_writers([writer(0), writer(1)], read, [bits(net) for net in nets])
    assert len(names(folder)) == 2


@pytest.fixture
def domains(tmp_path):
    """A bundle of two domains; and a net with those, dogs and wolves."""
    plan = plan_sharing(model(), "top", 0.5, example_input=torch.zeros(1, 1, 8, 8))
    wf.save(share(model(), {"birds": 2, "cars": 3}, plan), tmp_path / "bundle")
    net = wf.load(tmp_path / "bundle", model())
    net.add_domain("dogs", 4, from_domain="cars", seed=1)
    net.add_domain("wolves", 5, from_domain="birds", seed=2)
    return tmp_path / "bundle", net


def test_a_bundle(two_writers, domains):
    folder, net = domains
    before = names(folder)

    def writer(name: str) -> Callable[[], None]:
        def write():
            for _ in range(TIMES):
                Bundle(folder).add(net, name)  # fails if the other's change undid this one's
                Bundle(folder).remove(name)

        return write

    opened = Bundle(folder)
    plain = bits(net.deploy(domain="birds"))
    kept = {n: t.numpy().tobytes() for n, t in opened.delta("birds").items()}

    def read():
        found = opened.load(model())
        sizes = opened.sizes()
        delta = {n: t.numpy().tobytes() for n, t in opened.delta("birds").items()}
        return (
            {n: bits(found.deploy(domain=n)) == bits(net.deploy(domain=n)) for n in found.domains},
            set(sizes.domains) >= {"birds", "cars"},
            delta == kept,
            bits(Bundle(folder).load(model(), ["birds"]).deploy(domain="birds")) == plain,
        )

    further = [(), ("dogs",), ("wolves",), ("dogs", "wolves")]
    whole = [(dict.fromkeys(("birds", "cars", *more), True), True, True, True) for more in further]
    two_writers([writer("dogs"), writer("wolves")], read, whole)
    assert names(folder) == before


def test_a_delta_of_other_shared_tensors_is_refused_by_a_bundle_opened_before(domains):
    folder, net = domains
    opened = Bundle(folder)
    opened.shared()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(1)
    wf.save(net, folder)
    with pytest.raises(ValueError, match="other shared tensors"):
        opened.delta("birds")
    assert set(Bundle(folder).delta("birds")) and Bundle(folder).domains == net.domains


def test_a_domain_that_another_process_replaced_is_refused(domains):
    folder, net = domains
    opened = Bundle(folder)
    Bundle(folder).add(net, "dogs")
    Bundle(folder).remove("cars")
    assert set(opened.delta("birds"))
    with pytest.raises(ValueError, match="'cars'"):
        opened.delta("cars")


def test_reading_takes_no_lock_and_writes_nothing(domains, monkeypatch):
    folder, _ = domains
    before = {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}
    with locked(folder):
        assert bits(wf.load(folder, model())) and Bundle(folder).delta("birds")
        assert names(folder) - {".lock"} == set(before)
    monkeypatch.setattr("weightfold.methods.share.bundle.BRIEFLY", 0.1)
    with locked(folder), pytest.raises(FolderLockedError, match=str(folder)):
        Bundle(folder).remove("cars")
    assert {path.name: path.stat().st_mtime_ns for path in folder.iterdir()} == before


def test_masks(two_writers, tmp_path):
    """Of two findings with other levels: never some of one and some of the other."""
    folder = tmp_path / "masks"
    findings = [
        (
            {(level, 0): {"w": torch.arange(9) > level + count} for level in range(1, count)},
            {0: {"w": torch.full((9,), float(count))}},
        )
        for count in (3, 5)
    ]
    write_masks(folder, *findings[0])

    def writer(first: int) -> Callable[[], None]:
        def write():
            for i in range(TIMES):
                write_masks(folder, *findings[(first + i) % 2])

        return write

    def plain(masks):
        return {at: tensors["w"].tolist() for at, tensors in masks.items()}

    two_writers(
        [writer(0), writer(1)],
        lambda: plain(load_masks(folder)),
        [plain(masks) for masks, _ in findings],
    )
    starts = load_starts(folder)[0]["w"]
    assert any(torch.equal(starts, given[0]["w"]) for _, given in findings)
    assert len(names(folder)) in (2 + 2, 4 + 2)
