"""The engine: any mixture, any thread, few deltas at a time."""

import copy
import threading

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.share.tuning import tune
from weightfold.serve.engine import Engine
from weightfold.serve.snapshot import READY

NAMES = [f"d{i}" for i in range(READY + 2)]


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        nn.BatchNorm2d(6),
        nn.ReLU(inplace=True),
        nn.Conv2d(6, 8, 3, groups=2),
        nn.BatchNorm2d(8),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )


@pytest.fixture(scope="module")
def net(model):
    plan = wf.plan_sharing(model, fraction=0.5, example_input=torch.zeros(1, 3, 8, 8))
    net = wf.share(model, {name: 2 + i for i, name in enumerate(NAMES)}, plan)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    net.train()(dict.fromkeys(NAMES, torch.randn(6, 3, 8, 8)))
    net.about["d0"] = {"class_names": ["no", "yes"], "image_shape": [3, 8, 8], "mean": [0.5] * 3,
                       "std": [0.2] * 3}  # fmt: skip
    return net.eval()


@pytest.fixture
def folder(net, tmp_path):
    wf.save(net, tmp_path / "bundle")
    return tmp_path / "bundle"


def requests(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sizes = [(8, 8), (10, 12)]
    images = [torch.randn(3, *sizes[i % 2], generator=generator) for i in range(count)]
    chosen = torch.randint(len(NAMES), (count,), generator=generator).tolist()
    return images, [NAMES[i] for i in chosen]


def check(engine, net, count, seed=0):
    images, domains = requests(count, seed)
    answers = engine.predict(images, domains)
    for image, name, answer in zip(images, domains, answers, strict=True):
        wanted = net.deploy(domain=name)(image[None])[0].softmax(0)
        torch.testing.assert_close(answer, wanted, rtol=1e-5, atol=1e-6)


def test_every_image_in_its_domain(folder, model, net):
    engine = Engine(folder, model)
    assert engine.domains == NAMES
    for count in (1, 2, 7, 16):
        check(engine, net, count, seed=count)
    assert engine.classes("d0") == ("no", "yes") and engine.classes("d1") == ("0", "1", "2")
    assert engine.preprocessing("d0").image_shape == (3, 8, 8)
    with pytest.raises(ValueError, match="image_shape, mean, std of 'd1'"):
        engine.preprocessing("d1")


def test_few_deltas_at_a_time(folder, model, net):
    sizes = Engine(folder, model).bundle.sizes()
    size = max(sizes.domains.values())
    engine = Engine(folder, model, max_bytes=sizes.shared + 2 * size)
    for name in NAMES * 2:
        image = torch.ones(3, 8, 8)
        wanted = net(image[None], domain=name)[0].softmax(0)
        torch.testing.assert_close(engine.predict([image], [name])[0], wanted)
        assert len(engine.stats()["resident"]) <= 2
    assert engine.stats()["evictions"] == 2 * len(NAMES) - 2
    assert engine.stats()["bytes"] <= sizes.shared + 2 * size


def test_many_threads(folder, model, net):
    sizes = Engine(folder, model).bundle.sizes()
    room = sizes.shared + 8 * max(sizes.domains.values())
    engine, failures = Engine(folder, model, max_bytes=room), []

    def work(seed):
        try:
            for step in range(4):
                check(engine, net, 3, seed=10 * seed + step)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_measured_kernels_change_no_answer(folder, model, net):
    engine = Engine(folder, model)
    choices = engine.tune(torch.randn(8, 3, 8, 8), NAMES[:2] * 4)
    assert set(choices) == {"0", "1", "3", "4", "7"} - (
        {"3"} - set(net.plan.own)  # own filters only where the plan says so
    )
    assert all(set(c.milliseconds) == {"grouped", "segments"} for c in choices.values())
    check(engine, net, 12)
    with pytest.raises(ValueError, match="one domain only"):
        tune(net, torch.randn(2, 3, 8, 8), ["d0", "d0"])


def test_a_replica_made_while_kernels_are_chosen(folder, model, net, monkeypatch):
    engine, deepcopy = Engine(folder, model), copy.deepcopy

    def slow(*args):
        copied = deepcopy(*args)
        engine._now._local = threading.local()  # as `tune` does in another thread
        return copied

    monkeypatch.setattr(copy, "deepcopy", slow)
    check(engine, net, 5)


def test_wrong_requests(folder, model):
    engine = Engine(folder, model)
    with pytest.raises(KeyError, match=r"'d99'.*d0, d1"):
        engine.predict([torch.zeros(3, 8, 8)], ["d99"])
    with pytest.raises(ValueError, match="1 images and 2 domains"):
        engine.predict([torch.zeros(3, 8, 8)], ["d0", "d1"])


def test_a_cap_that_cannot_hold_the_shared_tensors_and_any_one_domain(folder, model, net):
    sizes = Engine(folder, model).bundle.sizes()
    name, largest = max(sizes.domains.items(), key=lambda item: item[1])
    least = sizes.shared + largest
    for cap in (0, 10, largest, sizes.shared, least - 1):
        with pytest.raises(ValueError, match=f"max_bytes={cap:,} .*{name!r}.*{least:,}"):
            Engine(folder, model, max_bytes=cap)
    engine = Engine(folder, model, max_bytes=least)
    check(engine, net, 8)
    assert engine.stats()["bytes"] <= least
