"""The service over a real bundle: what clients get is what the engine gives one image at a time."""

import asyncio

import httpx
import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.serve.engine import Engine
from weightfold.serve.http import make_app
from weightfold.serve.images import prepare
from weightfold.serve.limits import Limits

CLASSES = {"birds": 5, "cars": 3, "dogs": 4}


def model():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
        nn.Conv2d(6, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 7),
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path):
    plan = plan_sharing(
        model(), strategy="bottom", fraction=0.3, example_input=torch.zeros(1, 3, 8, 8)
    )
    net = share(model(), CLASSES, plan)
    generator = torch.Generator().manual_seed(0)
    for name, tensor in net.state_dict().items():
        if tensor.is_floating_point() and "running_var" not in name:
            tensor.add_(torch.randn(tensor.shape, generator=generator))
    for size, (name, count) in zip((12, 12, 16), CLASSES.items(), strict=True):
        net.about[name] = {
            "class_names": [f"{name}{index}" for index in range(count)],
            "image_shape": [3, size, size],
            "mean": [0.5] * 3,
            "std": [0.25] * 3,
        }
    wf.save(net, tmp_path / "bundle")
    return tmp_path / "bundle"


def test_clients_of_all_domains_at_once(folder, picture):
    sizes = Engine(folder, model()).bundle.sizes()
    # Room for two of the three domains: some are let go and mapped again while they are served.
    engine, alone = Engine(folder, model(), max_bytes=sizes.total - 1), Engine(folder, model())
    names = [list(CLASSES)[seed % 3] for seed in range(24)]
    app = make_app(engine, Limits(max_batch=2))

    async def run():
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
        ):
            return await asyncio.gather(
                *(
                    client.post(f"/v1/domains/{name}/predict", content=picture(seed))
                    for seed, name in enumerate(names)
                )
            )

    for seed, (name, answer) in enumerate(zip(names, asyncio.run(run()), strict=True)):
        assert answer.status_code == 200, answer.text
        image = prepare(picture(seed), alone.preprocessing(name), max_pixels=10**6)
        (wanted,) = alone.predict([image], [name])
        rows = answer.json()["predictions"]
        given = torch.zeros(CLASSES[name])
        for row in rows:
            assert row["label"] == f"{name}{row['class']}"
            given[row["class"]] = row["probability"]
        # Float32 sums of at most 54 products, in another order.
        torch.testing.assert_close(given, wanted, atol=1e-5, rtol=1e-5)
        assert rows == sorted(rows, key=lambda row: -row["probability"])
    assert engine.stats()["evictions"] > 0


def test_a_bundle_that_does_not_say_how_to_prepare_images(tmp_path):
    plan = plan_sharing(
        model(), strategy="bottom", fraction=0.3, example_input=torch.zeros(1, 3, 8, 8)
    )
    wf.save(share(model(), CLASSES, plan), tmp_path / "bundle")
    with pytest.raises(ValueError, match="does not say the image_shape, mean, std of 'birds'"):
        make_app(Engine(tmp_path / "bundle", model()))
