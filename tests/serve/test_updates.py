"""A bundle that is incomplete, wrong, or changed while it is served."""

import asyncio
import copy
import json
import os
import shutil

import httpx
import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.methods.share.bundle import Bundle
from weightfold.serve.engine import DomainUnavailable, Engine
from weightfold.serve.http import make_app

TOLD = {"image_shape": [3, 8, 8], "mean": [0.5] * 3, "std": [0.25] * 3}
ONE = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(0))
PATIENCE = {"rtol": 1e-5, "atol": 1e-6}  # float32 sums of at most 54 products, in another order


def model():
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 3),
    )  # fmt: skip


def make(seed=0, fraction=0.5, **classes):
    torch.manual_seed(seed)
    plan = wf.plan_sharing(model(), "bottom", fraction, example_input=ONE[None])
    net = wf.share(model(), classes or {"a": 3, "b": 2}, plan)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    net.about.update({name: copy.deepcopy(TOLD) for name in net.domains})
    return net.eval()


def file_of(folder, name):
    return folder / Bundle(folder).manifest["parts"][name]["file"]


@pytest.fixture
def net():
    return make()


@pytest.fixture
def folder(net, tmp_path):
    wf.save(net, tmp_path / "bundle")
    return tmp_path / "bundle"


def check(engine, net, *names):
    for name in names or net.domains:
        wanted = net(ONE[None], domain=name)[0].softmax(0)
        torch.testing.assert_close(engine.predict([ONE], [name])[0], wanted, **PATIENCE)


@pytest.mark.parametrize("harm", ["overwritten", "cut", "removed"])
def test_a_delta_in_memory_is_served_whatever_happens_to_its_file(net, folder, harm):
    engine = Engine(folder, model())
    check(engine, net)
    file = file_of(folder, "b")
    if harm == "overwritten":
        file.write_bytes(bytes(file.stat().st_size))
    elif harm == "cut":
        os.truncate(file, 64)
    else:
        file.unlink()
    check(engine, net)


@pytest.mark.parametrize("harm", ["overwritten", "cut", "removed"])
def test_a_delta_damaged_before_it_is_read_is_refused_and_the_others_are_served(net, folder, harm):
    engine, file = Engine(folder, model()), file_of(folder, "b")
    before = file.read_bytes()
    if harm == "removed":
        file.unlink()
    else:
        changed = bytearray(before)
        changed[-1] ^= 1
        file.write_bytes(changed if harm == "overwritten" else before[:64])
    with pytest.raises(DomainUnavailable, match=f"'b' cannot be served: .*{file.name}"):
        engine.predict([ONE, ONE], ["a", "b"])
    check(engine, net, "a")
    file.write_bytes(before)
    check(engine, net)


def test_half_a_bundle_is_refused_with_the_names_of_what_is_missing(folder):
    missing = [file_of(folder, name) for name in "ab"]
    missing[1].unlink()
    with pytest.raises(ValueError, match=f"'b': its file {missing[1].name} is missing"):
        Engine(folder, model())
    missing[0].unlink()
    with pytest.raises(ValueError, match=f"{missing[0].name}.*{missing[1].name}"):
        Engine(folder, model())


def test_a_bundle_without_its_shared_tensors_is_refused(folder):
    name = Bundle(folder).manifest["tensors"]["file"]
    (folder / name).unlink()
    with pytest.raises(FileNotFoundError, match=name):
        Engine(folder, model())


@pytest.mark.parametrize(
    ("told", "text"),
    [
        ({"class_names": ["x"]}, "class_names are 1, but the domain has 2"),
        ({"class_names": [1, 2]}, "class_names"),
        ({"class_names": "xy"}, "class_names"),
        ({"std": [0.1, 0.0, 0.1]}, "std=.* above 0"),
        ({"std": [0.1, -0.1, 0.1]}, "std"),
        ({"std": [float("nan")] * 3}, "std"),
        ({"std": [0.1]}, "std=.* must be 3 numbers"),
        ({"mean": ["x"] * 3}, "mean"),
        ({"mean": 0.5}, "mean=0.5 must be a list"),
        ({"image_shape": [3, 8]}, "image_shape"),
        ({"image_shape": [3, 8, 0]}, "image_shape"),
    ],
)
def test_what_is_told_wrongly_of_a_domain_is_refused_at_the_start(net, tmp_path, told, text):
    net.about["b"].update(told)
    wf.save(net, tmp_path / "bundle")
    with pytest.raises(ValueError, match=rf"b['.].*{text}"):
        Engine(tmp_path / "bundle", model())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_a_net_is_served_in_the_dtype_it_was_saved_in(net, tmp_path, dtype):
    wf.save(net.to(dtype), tmp_path / "bundle")
    answers = Engine(tmp_path / "bundle", model()).predict([ONE] * 2, ["a", "b"])
    for name, answer in zip("ab", answers, strict=True):
        assert answer.dtype == torch.float32
        wanted = net(ONE[None].to(dtype), domain=name)[0].softmax(0, dtype=torch.float32)
        # Sums of a few tens of products in the saved dtype, in another order.
        error = max(1e-6, 50 * torch.finfo(dtype).eps)
        torch.testing.assert_close(answer, wanted, rtol=error, atol=error)


def test_a_domain_in_another_dtype_is_refused(net, tmp_path):
    net.sharing.domains["b"].half()
    wf.save(net, tmp_path / "bundle")
    with pytest.raises(ValueError, match=r"'b': .*torch.float16.*torch.float32"):
        Engine(tmp_path / "bundle", model())


def test_a_bundle_of_another_plan_than_its_deltas(net, folder, tmp_path):
    """The file of `b` comes from a net whose domains own other filters."""
    wf.save(make(fraction=0.9), tmp_path / "other")
    shutil.copy(file_of(tmp_path / "other", "b"), file_of(folder, "b"))
    with pytest.raises(ValueError, match=f"'b': its file {file_of(folder, 'b').name} has"):
        Engine(folder, model())


def test_a_domain_that_is_added_is_served(net, folder):
    bundle = Bundle(folder)
    engine = Engine(bundle, model())
    check(engine, net)
    more = bundle.load(model())
    more.add_domain("c", 4, from_domain="a")
    bundle.add(more, "c")
    assert engine.domains == ["a", "b", "c"] and engine.version == 1
    check(engine, more.eval())
    counts = engine.stats()
    assert counts["misses"] == 3, "deltas whose files stayed are not read again"
    bundle.remove("a")
    with pytest.raises(KeyError, match="domain='a'; the domains are b, c"):
        engine.predict([ONE], ["a"])
    check(engine, more, "b", "c")


def test_a_domain_that_is_retrained_is_served_anew(net, folder):
    engine = Engine(folder, model())
    check(engine, net)
    with torch.no_grad():
        for p in net.sharing.domains["b"].parameters():
            p.mul_(1.5)
    wf.save(net, folder)
    check(engine, net)
    assert engine.stats()["misses"] == 3


@pytest.mark.parametrize("fraction", [0.5, 0.9])
def test_a_bundle_that_is_saved_again_is_served_anew(net, folder, fraction):
    engine = Engine(folder, model())
    check(engine, net, "a")
    other = make(seed=1, fraction=fraction, b=4, c=2)
    wf.save(other, folder)
    check(engine, other)
    assert engine.domains == ["b", "c"] and engine.update_refused is None
    engine.tune(torch.stack([ONE] * 4), ["b", "c"] * 2)
    wf.save(net, folder)
    check(engine, net)


def damage(folder):
    (folder / "manifest.json").write_text("{")


def remove(folder):
    (folder / "manifest.json").unlink()


def of_another_network(folder):
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    plan = wf.plan_sharing(plain, "bottom", 0.5, example_input=ONE[None])
    wf.save(wf.share(plain, {"a": 3, "b": 2}, plan), folder)


@pytest.mark.parametrize("harm", [damage, remove, of_another_network])
def test_a_state_that_cannot_be_served_is_refused_and_the_last_one_stays(net, folder, harm):
    engine = Engine(folder, model())
    check(engine, net, "a")
    harm(folder)
    check(engine, net, "a")
    assert engine.update_refused and engine.version == 0
    wf.save(net, folder)
    check(engine, net)
    assert engine.update_refused is None


def test_a_cap_that_the_new_state_does_not_fit_under_refuses_it(net, folder):
    engine = Engine(folder, model(), max_bytes=Bundle(folder).sizes().total)
    check(engine, net, "a")
    wf.save(make(fraction=1.0, a=5000, b=2), folder)
    check(engine, net, "a")
    assert "max_bytes=" in engine.update_refused


def clients(engine, *calls):
    """Answers to (method, path, options), one after another; a function is called in between."""

    async def run():
        app, answers = make_app(engine), []
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client,
        ):
            for call in calls:
                if callable(call):
                    call()
                else:
                    answers.append(await client.request(*call[:2], **call[2]))
        return answers

    return asyncio.run(run())


def test_v1_domains_says_what_is_served(net, folder, picture):
    engine, bundle = Engine(folder, model()), Bundle(folder)
    more = bundle.load(model())

    def add(name, told):
        more.add_domain(name, 2, from_domain="a")
        more.about[name] = told
        bundle.add(more, name)

    listing = ("GET", "/v1/domains", {})
    image = {"content": picture()}
    asked = [("POST", f"/v1/domains/{name}/predict", image) for name in "cde"]
    answers = clients(
        engine,
        lambda: add("c", TOLD),
        asked[0],
        lambda: add("d", {}),
        lambda: add("e", {**TOLD, "class_names": ["x", "y", "z"]}),
        *asked,
        listing,
        lambda: damage(folder),
        listing,
        asked[0],
    )
    assert [answer.status_code for answer in answers] == [200, 200, 503, 503, 200, 200, 200]
    rows = {row["name"]: row for row in answers[4].json()["domains"]}
    assert list(rows) == ["a", "b", "c", "d", "e"]
    assert [name for name, row in rows.items() if "refused" in row] == ["d", "e"]
    assert (
        "image_shape, mean, std" in rows["d"]["refused"] and "class_names" in rows["e"]["refused"]
    )
    assert "update_refused" not in answers[4].json()
    assert "manifest.json" in answers[5].json()["update_refused"]


def test_a_damaged_delta_is_a_503_that_says_why(folder, picture):
    engine, file = Engine(folder, model()), file_of(folder, "b")
    file.write_bytes(b"")
    asked = [("POST", f"/v1/domains/{name}/predict", {"content": picture()}) for name in "ab"]
    good, bad = clients(engine, *asked)
    assert good.status_code == 200 and bad.status_code == 503
    assert "hash is not the manifest's" in bad.json()["error"]


def test_an_answer_never_mixes_two_states(folder, picture, net):
    """While a request waits, the bundle is saved anew with other classes and preprocessing."""
    engine, predict = Engine(folder, model()), Engine.predict
    other = make(seed=1, a=7, b=2)
    other.about["a"] |= {"class_names": list("stuvwxy"), "image_shape": [3, 12, 12]}
    shapes = []

    def slow(images, domains):
        if not shapes:
            wf.save(other, folder)
        shapes.append(images[0].shape)
        return predict(engine, images, domains)

    engine.predict = slow
    (answer,) = clients(engine, ("POST", "/v1/domains/a/predict?top=9", {"content": picture()}))
    assert shapes == [(3, 8, 8), (3, 12, 12)]
    assert {row["label"] for row in answer.json()["predictions"]} == set("stuvwxy")


def test_a_domain_removed_while_a_request_waits_is_a_404(folder, picture, net):
    engine, predict = Engine(folder, model()), Engine.predict

    def slow(images, domains):
        Bundle(folder).remove("a")
        return predict(engine, images, domains)

    engine.predict = slow
    (answer,) = clients(engine, ("POST", "/v1/domains/a/predict", {"content": picture()}))
    assert answer.status_code == 404 and json.loads(answer.content)["error"]


def test_over_http_a_bundle_is_retrained_loses_a_domain_and_is_deleted(folder, picture, net):
    """Each state is served, or refused while the last one goes on, and `/v1/domains` says which."""
    engine, other = Engine(folder, model()), make(seed=1)
    listing = ("GET", "/v1/domains", {})
    asked = [("POST", f"/v1/domains/{name}/predict", {"content": picture()}) for name in "ab"]
    answers = clients(
        engine,
        *asked,
        lambda: wf.save(other, folder),
        *asked,
        lambda: Bundle(folder).remove("b"),
        *asked,
        listing,
        lambda: shutil.rmtree(folder),
        asked[0],
        listing,
        lambda: wf.save(net, folder),
        *asked,
        listing,
    )
    codes = [answer.status_code for answer in answers]
    assert codes == [200, 200, 200, 200, 200, 404, 200, 200, 200, 200, 200, 200]
    old, retrained, kept, deleted, anew = (
        answers[i].json()["predictions"] for i in (0, 2, 4, 7, 9)
    )
    assert old == anew and old != retrained and retrained == kept == deleted
    domains = [[row["name"] for row in answers[i].json()["domains"]] for i in (6, 8, 11)]
    assert domains == [["a"], ["a"], ["a", "b"]]
    refused = [answers[i].json().get("update_refused") for i in (6, 8, 11)]
    assert refused[0] is refused[2] is None and "manifest.json" in refused[1]
