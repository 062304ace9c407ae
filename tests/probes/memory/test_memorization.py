import json
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, Examples
from weightfold.probes.finding import write_finding
from weightfold.probes.memory import Memorization, Variant
from weightfold.probes.memory.fits import Line
from weightfold.probes.memory.verdicts import RANDOM, TRUE
from weightfold.train.loop import NonFiniteLoss
from weightfold.train.recipe import Recipe

RECIPE = Recipe(epochs=80, batch_size=16, lr=0.05, schedule="constant", crop_padding=0, flip=False)


@pytest.fixture(scope="module")
def found(data, network):
    return wf.memorization(
        network,
        data,
        fractions=(0.5,),
        noise=("random-labels", "gaussian"),
        variants={"weight decay": Variant(recipe=replace(RECIPE, weight_decay=0.3, epochs=4))},
        radius=0.2,
        recipe=RECIPE,
        seeds=(0, 1),
        progress=False,
    )


def test_all_is_fitted_and_random_labels_take_longer(found):
    results = found.results
    lines = [line for line in results.lines if not line.variant]
    assert [line.title for line in lines] == [
        "true",
        "random labels 50%",
        "random labels",
        "shuffled pixels",
        "random pixels",
        "gaussian 50%",
        "gaussian",
    ]
    for line in lines:
        for fit in results.of(line).values():
            # 5 steps an epoch; it ends with the first measurement without an error.
            assert fit.train_accuracy == 1 and fit.zero_epoch == fit.epochs == fit.zero_step / 5
            assert [accuracy < 1 for _, accuracy, _ in fit.curve] == [True] * int(fit.epochs) + [
                False
            ]
            assert [epoch for epoch, _, _ in fit.curve] == list(range(int(fit.epochs) + 1))
    for seed in (0, 1):
        assert results.of(RANDOM)[seed].epochs > results.of(TRUE)[seed].epochs
        assert results.of(TRUE)[seed].test_accuracy > 0.7
        assert results.of(RANDOM)[seed].test_accuracy < 0.6


def test_what_was_changed_is_counted(found):
    def changed(line):
        return [(f.labels_changed, f.inputs_changed) for f in found.results.of(line).values()]

    assert changed(TRUE) == [(0, 0)] * 2
    assert changed(Line("gaussian", 0.5)) == [(0, 40)] * 2
    assert changed(Line("shuffled-pixels")) == [(0, 80)] * 2
    labels = [labels for labels, _ in changed(RANDOM)]
    # Three of four drawn labels are others: 60, of standard deviation 3.9; each seed its own.
    assert all(abs(count - 60) < 4 * 3.9 for count in labels)


def test_variants_have_their_own_recipe(found):
    decayed = found.results.of(Line("random-labels", variant="weight decay"))
    assert [fit.epochs for fit in decayed.values()] == [4, 4]
    assert [fit.zero_epoch for fit in decayed.values()] == [None, None]
    assert found.results.epochs(Line("random-labels", variant="weight decay")) == "> 4"
    claims = {verdict.claim: verdict.holds for verdict in found.verdicts}
    assert claims["Every condition is fitted to zero training error"] == "holds"
    name = "Explicit regularisation does not keep the network from fitting random labels"
    assert claims[name] == "undecided"


def test_noise_brings_predictions_closer_together(found):
    for seed in (0, 1):
        assert found.results.of(RANDOM)[seed].critical > found.results.of(TRUE)[seed].critical


def test_words_table_rows_figure_and_record(found, tmp_path):
    assert "by heart: no training error after" in found.headline and "2 seeds" in found.headline
    page = write_finding(found, tmp_path, title="blobs").read_text(encoding="utf-8")
    assert page.count("Claim. ") == len(found.verdicts) >= 6
    record = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert record.pop("probe") == "memorization"
    assert Memorization.from_record(record) == found
    assert (tmp_path / "memorization.png").stat().st_size > 20_000
    assert len(found.rows()) == 18
    assert found.rows()[2]["condition"] == "random-labels" and found.rows()[2]["fraction"] == 0.5


class Stop(BaseException):
    pass


def test_a_stopped_call_goes_on(data, network, tmp_path):
    def ask(folder, progress):
        conditions = ("true", "random-labels")
        return wf.memorization(
            network,
            data,
            conditions=conditions,
            recipe=RECIPE,
            seeds=(0, 1),
            folder=folder,
            progress=progress,
        )

    told = []

    def stop(now):
        told.append(now)
        if now.completed > 1.05:
            raise Stop

    with pytest.raises(Stop):
        ask(tmp_path / "a", stop)
    assert 0 <= told[0].completed < told[-1].completed and told[-1].total == 2
    ended = sorted(p.name for p in (tmp_path / "a" / "runs").iterdir())
    assert ended == ["random-labels", "true"]
    fits = ask(tmp_path / "a", False).fits
    whole = ask(None, False).fits
    assert [replace(f, seconds=0) for f in fits] == [replace(f, seconds=0) for f in whole]
    with pytest.raises(FileExistsError, match="recipe"):
        wf.memorization(
            network,
            data,
            conditions=("true",),
            recipe=replace(RECIPE, lr=0.1),
            seeds=(0, 1),
            folder=tmp_path / "a",
            progress=False,
        )


def test_a_module_is_left_as_it_is_and_starts_every_seed(data, network):
    net = network(5)
    before = deepcopy(net.state_dict())
    found = wf.memorization(
        net,
        data,
        conditions=("true",),
        recipe=replace(RECIPE, epochs=1),
        seeds=(0, 1),
        progress=False,
    )
    assert all(torch.equal(before[name], t) for name, t in net.state_dict().items())
    curves = [fit.curve for fit in found.fits]
    assert curves[0][0] == curves[1][0] and curves[0] != curves[1]
    assert "does not learn" in found.headline and "'true'" in found.headline


def test_networks_that_fail_are_named_and_left_out(data, network):
    bad = Variant(recipe=replace(RECIPE, lr=1e30))
    found = wf.memorization(
        network,
        data,
        conditions=("true",),
        variants={"huge lr": bad},
        recipe=RECIPE,
        seeds=(0, 1),
        progress=False,
    )
    assert {fit.line for fit in found.fits} == {TRUE}
    left_out = [note for note in found.notes if "left out" in note]
    assert len(left_out) == 4 and left_out[0].startswith(
        "true, huge lr, seed 0: left out, the loss is"
    )
    with pytest.raises(NonFiniteLoss, match="no network came to its end"):
        wf.memorization(
            network,
            data,
            conditions=("true",),
            recipe=replace(RECIPE, lr=1e30),
            seeds=(0,),
            progress=False,
        )


def test_equal_inputs_with_other_labels_are_told(network):
    x = torch.randn(20, 24, generator=torch.Generator().manual_seed(0))
    x[10:] = x[:10]
    y = torch.arange(20) % 4
    twice = Dataset("data", Examples(x, y), Examples(x, y), 4)
    found = wf.memorization(
        network,
        twice,
        conditions=("true", "gaussian"),
        recipe=replace(RECIPE, epochs=40),
        seeds=(0,),
        progress=False,
    )
    # Labels of equal inputs differ by 2: one of each pair stays wrong.
    assert found.results.of(TRUE)[0].train_accuracy <= 0.5
    assert any(n.startswith("true: equal inputs") and "least 10 of 20" in n for n in found.notes)
    assert not any(n.startswith("gaussian: equal inputs") for n in found.notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"conditions": ("true", "noise")}, "conditions has 'noise'; give some of true"),
        ({"noise": ("shuffled-pixels",)}, "noise has 'shuffled-pixels'; give some of random"),
        ({"fractions": (0.5, 1.0)}, "fractions has 1.0"),
        ({"variants": {"a/b": Variant()}}, "variants has 'a/b'"),
        ({"conditions": ()}, "at least one condition"),
        ({"seeds": ()}, "seeds="),
        ({"seeds": (1, 1)}, "each once"),
        ({"radius": -1.0}, "radius=-1.0"),
    ],
)
def test_bad_arguments_are_refused(data, network, arguments, message):
    with pytest.raises(ValueError, match=message):
        wf.memorization(network, data, progress=False, **arguments)


@pytest.mark.parametrize("probe", [wf.memorization, wf.example_ledger])
def test_a_network_of_too_few_classes_is_refused(data, probe):
    with pytest.raises(ValueError, match=r"shape \(8, 3\).*takes \(8, 4\)"):
        probe(nn.Linear(24, 3), data, progress=False)
