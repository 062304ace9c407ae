import copy
import csv
import json
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from safetensors.torch import load_file

import weightfold as wf
from weightfold.data import Augment, hold_out
from weightfold.tasks import build
from weightfold.train import History, NonFiniteLoss, evaluate, fit
from weightfold.train.domains import DomainOptions, Joint, evaluate_domains, fit_domains

OWN = "charts.0.domains."


def train(net, data, recipe, folder, *, seed=0, progress=False, **options):
    return fit_domains(
        net,
        data,
        recipe,
        seed=seed,
        folder=folder,
        device="cpu",
        progress=progress,
        options=DomainOptions(**options),
    )


def snapshot(net):
    return {name: t.clone() for name, t in net.state_dict().items()}


def moved(before, after):
    return {name for name in before if not torch.equal(before[name], after[name])}


def of(names, domain):
    return {name for name in names if name.startswith(f"{OWN}{domain}.")}


def test_it_learns_and_leaves_its_record(make_net, datasets, quick, tmp_path):
    net = make_net()
    recipe = replace(quick, epochs=12, weight_decay=0)
    history = train(net, datasets, recipe, tmp_path)
    assert min(history.last_values.values()) > 0.85  # linearly separable
    assert history.last_values == evaluate_domains(net, datasets)
    for name, dataset in datasets.items():
        plain = net.deploy(domain=name)
        assert history.last_values[name] == evaluate(plain, dataset)["accuracy"]
        found = history.rows[-1][f"train_eval_accuracy/{name}"]
        assert found == evaluate(plain, dataset, "train")["accuracy"]
    assert history.selection.startswith("test (")
    means = [sum(f["test_accuracy"] for f in r.domains.values()) / 2 for r in history.rows]
    assert [row["test_accuracy"] for row in history.rows] == means
    assert history.best_epoch == 1 + means.index(max(means))

    best = make_net(1)
    best.load_state_dict(load_file(tmp_path / "best.safetensors"))
    assert evaluate_domains(best, datasets) == history.best_values
    rows = list(csv.DictReader((tmp_path / "metrics.csv").read_text().splitlines()))
    assert float(rows[-1]["test_accuracy/cars"]) == history.last_values["cars"]
    saved = json.loads((tmp_path / "history.json").read_text())
    assert saved["best_values"] == history.best_values
    assert History.from_json(saved) == history
    configuration = json.loads((tmp_path / "run.json").read_text())["configuration"]
    assert configuration["tasks"]["cars"]["data"]["name"] == "c"
    assert configuration["joint"]["sampler"] == "all"


def test_validation_is_split_off_every_domain(make_net, datasets, quick, tmp_path):
    net = make_net()
    history = train(net, datasets, quick, tmp_path, validation=0.25, seed=3)
    assert history.selection == "validation"
    for name, dataset in datasets.items():
        found = evaluate(net.deploy(domain=name), hold_out(dataset, 0.25, 3), "validation")
        assert history.rows[-1].domains[name]["validation_accuracy"] == found["accuracy"]


@pytest.mark.parametrize(
    "optimizer", [{"momentum": 0.9, "nesterov": True}, {"optimizer": "adamw", "lr": 1e-3}]
)
def test_absent_domains_are_bitwise_still(make_net, datasets, quick, tmp_path, optimizer):
    net = make_net()
    states = [snapshot(net)]
    recipe = replace(quick, epochs=4, weight_decay=0.1, schedule="constant", **optimizer)
    joint = Joint(sampler="round_robin", epoch=1, loss_weights="uncertainty")
    history = train(
        net,
        datasets,
        recipe,
        tmp_path,
        joint=joint,
        progress=lambda row: states.append(snapshot(net)),
    )
    for step, (before, after) in enumerate(pairwise(states)):
        present, absent = ("birds", "cars") if step % 2 == 0 else ("cars", "birds")
        changed = moved(before, after)
        assert of(changed, absent) == set()
        assert of(changed, present) == of(before, present)
        assert {name for name in changed if ".shared." in name}
        figures = history.rows[step].domains
        assert figures[absent]["train_loss"] is None and figures[present]["train_loss"] > 0
        if step:
            same = figures[absent]["weight"] == history.rows[step - 1].domains[absent]["weight"]
            assert same


def test_at_full_share_every_domain_trains_as_if_alone(make_net, make_dataset, quick, tmp_path):
    classes = {"birds": 4, "cars": 3}
    datasets = {name: make_dataset(name, 48, count) for name, count in classes.items()}
    net = make_net(fraction=1.0)
    alone = {name: net.deploy(domain=name) for name in classes}
    recipe = replace(quick, crop_padding=1)
    train(net, datasets, recipe, tmp_path / "joint")
    for name, plain in alone.items():
        options = {"seed": 0, "device": "cpu", "progress": False}
        fit(plain, datasets[name], recipe, folder=tmp_path / name, **options)
        for one, other in zip(
            net.deploy(domain=name).parameters(), plain.parameters(), strict=True
        ):
            # nine steps, each with rounding of about 1e-7 in another order of summation
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def gradient_step(net, datasets, quick, folder, **options):
    """What one step of plain SGD at lr 1 moves each tensor by."""
    recipe = replace(
        quick, epochs=1, batch_size=64, lr=1.0, momentum=0, weight_decay=0, schedule="constant"
    )
    before = snapshot(net)
    joint = replace(options.pop("joint", Joint()), epoch=1)
    train(net, datasets, recipe, folder, joint=joint, **options)
    after = net.state_dict()
    names = [name for name, _ in net.named_parameters()]
    return {name: after[name] - before[name] for name in names}


def close(one, other, factor=1.0):
    # rounding of weights near 1, in float32
    torch.testing.assert_close(one, other * factor, rtol=1e-4, atol=1e-6)


def test_the_mean_halves_only_what_is_shared(make_net, datasets, quick, tmp_path):
    total = gradient_step(make_net(), datasets, quick, tmp_path / "sum")
    joint = Joint(shared_gradient="mean")
    mean = gradient_step(make_net(), datasets, quick, tmp_path / "mean", joint=joint)
    for name in total:
        close(mean[name], total[name], 1 if name.startswith(OWN) else 0.5)


def test_loss_weights_scale_each_domain(make_net, datasets, quick, tmp_path):
    plain = gradient_step(make_net(), datasets, quick, tmp_path / "plain")
    joint = Joint(loss_weights={"birds": 0.25, "cars": 1.0})
    weighted = gradient_step(make_net(), datasets, quick, tmp_path / "weighted", joint=joint)
    for name in of(plain, "birds"):
        close(weighted[name], plain[name], 0.25)
    for name in of(plain, "cars"):
        close(weighted[name], plain[name])


def test_uncertainty_weights_follow_their_gradient(make_net, datasets, quick, tmp_path):
    recipe = replace(
        quick, epochs=1, lr=0.1, momentum=0, weight_decay=0.5, schedule="constant", batch_size=64
    )
    history = train(
        make_net(),
        datasets,
        recipe,
        tmp_path,
        joint=Joint(loss_weights="uncertainty", epoch=1),
    )
    for figures in history.rows[0].domains.values():
        s = 0.1 * (figures["train_loss"] - 0.5)  # from 0, d/ds (exp(-s) L + s / 2) = 1 / 2 - L
        assert figures["weight"] == pytest.approx(torch.tensor(-s).exp().item(), rel=1e-5)


def mean_of_rows(jacobian):
    return jacobian.mean(dim=0)


def test_an_aggregator_sees_the_jacobian_of_what_is_shared(make_net, datasets, quick, tmp_path):
    seen = []

    def note(jacobian):
        seen.append(jacobian)
        return mean_of_rows(jacobian)

    joint = Joint(shared_gradient="mean")
    wanted = gradient_step(make_net(), datasets, quick, tmp_path / "mean", joint=joint)
    given = gradient_step(make_net(), datasets, quick, tmp_path / "given", aggregator=note)
    for name in wanted:
        close(given[name], wanted[name])
    shared = sum(t.numel() for name, t in wanted.items() if not name.startswith(OWN))
    assert [jacobian.shape for jacobian in seen] == [(2, shared)]


def test_torchjd_aggregates(make_net, datasets, quick, tmp_path):
    aggregation = pytest.importorskip("torchjd.aggregation")
    joint = Joint(shared_gradient="mean")
    wanted = gradient_step(make_net(), datasets, quick, tmp_path / "mean", joint=joint)
    mean = aggregation.Mean()
    given = gradient_step(make_net(), datasets, quick, tmp_path / "given", aggregator=mean)
    for name in wanted:
        close(given[name], wanted[name])
    run = json.loads((tmp_path / "given" / "run.json").read_text())
    assert run["configuration"]["aggregator"] == "Mean()"


def test_head_epochs_train_nothing_but_the_classifiers(make_net, datasets, quick, tmp_path):
    net = make_net()
    states = [snapshot(net)]
    history = train(
        net,
        datasets,
        replace(quick, epochs=1),
        tmp_path,
        joint=Joint(head_epochs=2),
        progress=lambda row: states.append(snapshot(net)),
    )
    assert [row.epoch for row in history.rows] == [1, 2, 3]
    assert history.rows[0].lr == history.rows[1].lr == quick.lr
    heads = {name for name in states[0] if ".classifier." in name}
    assert len(heads) == 4
    assert moved(states[0], states[1]) == moved(states[1], states[2]) == heads
    trained = {name for name, _ in net.named_parameters()}
    assert moved(states[2], states[3]) >= trained
    assert all(p.requires_grad for p in net.parameters())


def test_every_domain_is_augmented_its_own_way(make_net, datasets, quick, tmp_path):
    batches = []
    net = make_net()
    net.register_forward_pre_hook(lambda m, args: batches.append(args[0]) if m.training else None)
    tasks = {**datasets, "cars": build("classify", datasets["cars"], augment=Augment(0, False))}
    recipe = replace(quick, epochs=1, crop_padding=3)
    train(net, tasks, recipe, tmp_path, joint=Joint(epoch=1))

    def raw(name):
        images = datasets[name].train.inputs / 255
        return {tuple(x) for x in ((images - 0.3) / 0.25).flatten(1).mul(1000).round().tolist()}

    def given(name):
        return {tuple(x) for x in batches[0][name].flatten(1).mul(1000).round().tolist()}

    assert given("cars") <= raw("cars")
    assert len(given("birds") & raw("birds")) < 8  # of 16; a crop stays in place by chance 1/49


def test_sizes_and_numbers_of_images_may_differ(make_net, make_dataset, quick, tmp_path):
    datasets = {"birds": make_dataset("b", 70, 4), "cars": make_dataset("c", 5, 3, size=12)}
    history = train(make_net(), datasets, quick, tmp_path, precision="bf16-mixed")
    assert set(history.last_values) == {"birds", "cars"}


def test_a_chart_over_the_net_trains(make_net, datasets, quick, tmp_path):
    net = wf.subspace(make_net(), dim=7, where=f"{OWN}cars.features.0.weight", seed=0)
    before = snapshot(net)
    train(net, datasets, quick, tmp_path, joint=Joint(shared_gradient="mean"))
    assert moved(before, net.state_dict()) >= {name for name, _ in net.named_parameters()}


def test_what_does_not_fit_is_refused_before_anything_is_written(
    make_net, make_dataset, datasets, quick, tmp_path
):
    def refused(error, message, data=datasets, recipe=quick, **options):
        with pytest.raises(error, match=message):
            train(options.pop("net", make_net()), data, recipe, tmp_path / "new", **options)
        assert not (tmp_path / "new").exists()

    refused(ValueError, "data is empty", {})
    refused(ValueError, "data lacks cars; give birds, cars", {"birds": datasets["birds"]})
    refused(KeyError, "dogs.*domains are birds, cars", {**datasets, "dogs": datasets["cars"]})
    six = {**datasets, "cars": make_dataset("c", 40, 6)}
    refused(ValueError, r"'cars'.* \(2, 3\), .* on 'c' takes \(2, 6\)", six)
    refused(TypeError, "Linear without domains", net=torch.nn.Linear(1, 1))
    weights = Joint(loss_weights={"birds": 1.0, "dogs": 1.0})
    refused(ValueError, "loss_weights lacks cars and names dogs", joint=weights)
    for on in ("theta", "theta-theta0"):
        recipe = replace(quick, decay_on=on, weight_decay=0.1)
        refused(ValueError, f"decay_on='{on}'", recipe=recipe)
    refused(ValueError, "validation=-1", validation=-1)
    refused(ValueError, "devices=9", devices=9)
    robin = Joint(sampler="round_robin")
    refused(ValueError, "sampler='round_robin' with", joint=robin, aggregator=mean_of_rows)
    refused(ValueError, "16-mixed", precision="16-mixed", aggregator=mean_of_rows)


def test_the_domain_whose_loss_breaks_is_named(make_net, datasets, quick, tmp_path):
    net = make_net()

    def poison(module, args, output):
        if module.training and "cars" in output:
            output["cars"] = output["cars"] * float("nan")

    net.register_forward_hook(poison)
    with pytest.raises(NonFiniteLoss, match="the loss of 'cars' is nan in epoch 1, step 1 of 4"):
        train(net, datasets, quick, tmp_path)


def test_the_callers_randomness_is_left_alone(make_net, datasets, quick, tmp_path):
    state = torch.get_rng_state()
    one, other = make_net(), copy.deepcopy(make_net())
    train(one, datasets, quick, tmp_path / "a")
    assert torch.equal(state, torch.get_rng_state())
    torch.manual_seed(123)
    train(other, datasets, quick, tmp_path / "b")
    assert moved(one.state_dict(), other.state_dict()) == set()
