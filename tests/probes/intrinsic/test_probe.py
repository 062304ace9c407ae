import csv
import json
from dataclasses import replace
from math import exp, log, sqrt
from statistics import fmean, stdev

import pytest
import torch
from scipy.stats import t
from torch import nn

import weightfold as wf
from weightfold.data import Examples, hold_out
from weightfold.probes.finding import read_record, write_finding
from weightfold.probes.intrinsic import IntrinsicDimension, intrinsic_dimension
from weightfold.train.progress import Progress
from weightfold.train.recipe import Recipe

ALONE, SIDE_BY_SIDE = 1, 24


@pytest.fixture(scope="session")
def probe(make_net, samples, quick):
    """The probe with small defaults."""

    def run(net=make_net, data=samples, **options) -> IntrinsicDimension:
        small = {"recipe": quick, "seeds": (0, 1), "start": 8, "resolution": 0.5}
        options = small | {"progress": False} | options
        return intrinsic_dimension(net, data, **options)

    return run


@pytest.fixture(scope="session")
def found(probe) -> IntrinsicDimension:
    """An answer from two seeds, one run after another."""
    return probe(together=ALONE)


def same(a: IntrinsicDimension, b: IntrinsicDimension) -> bool:
    return replace(a, sessions=()) == replace(b, sessions=())


@pytest.mark.parametrize("together", [ALONE, SIDE_BY_SIDE])
def test_the_answer_follows_from_the_runs(probe, together):
    found = probe(together=together, seeds=(0, 1, 2), resolution=0.1)
    assert found.parameters == 6 * 8 + 8 + 8 * 3 + 3
    assert found.bar == 0.9 * fmean(run.value for run in found.baselines)
    low, high = found.bracket
    assert low < high <= max(low * 1.1, low + 1)
    assert all(a >= found.bar for a in found.curve[high])
    assert any(a < found.bar for a in found.curve[low])
    logs = [log(d) for d in found.crossings.values()]
    assert found.dimension == pytest.approx(exp(fmean(logs)), rel=1e-12)
    half = t.ppf(0.975, 2) * stdev(logs) / sqrt(3)
    wanted = (exp(fmean(logs) - half), exp(fmean(logs) + half))
    assert found.interval == pytest.approx(wanted, rel=1e-9)
    assert {run.seed for run in found.trained} == {0, 1, 2}
    assert any("nested" in note for note in found.notes) == (together > 1)


def test_runs_begin_at_the_initial_weights(found, make_net, samples, quick):
    run = found.trained[0]
    x, y = samples.test.inputs, samples.test.targets
    right = (make_net(run.seed)(x).argmax(dim=1) == y).double().mean().item()
    assert run.start == right
    assert run.best >= run.value
    assert 1 <= run.best_epoch <= quick.epochs


def test_one_seed_has_no_interval(probe):
    found = probe(seeds=(3,))
    assert found.dimension is not None
    assert found.interval is None
    assert "no interval" in found.headline


def test_a_module_is_the_start_of_all_seeds_and_is_left_alone(probe, make_net):
    model = make_net(5)
    before = {n: tensor.clone() for n, tensor in model.state_dict().items()}
    found = probe(model)
    assert all(torch.equal(tensor, before[n]) for n, tensor in model.state_dict().items())
    assert len({run.start for run in found.trained}) == 1
    assert any("same weights" in note for note in found.notes)


def test_bound_where_the_bar_is_never_reached(probe):
    found = probe(d_max=2, start=1, threshold=1.0)
    assert found.dimension is None
    assert found.interval is None
    assert found.tried == 2
    assert "above 2" in found.headline


def test_validation_set_is_used_where_there_is_one(probe, samples, found):
    held_out = probe(data=hold_out(samples, 40, seed=0), seeds=(0,))
    assert (held_out.part, held_out.examples) == ("validation", 40)
    assert (found.part, found.examples) == ("test", len(samples.test))


def test_shuffled_labels_by_training_accuracy(probe, quick):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(48, 6, generator=generator), torch.arange(48) % 2
    data = ((x[:24], y[:24]), (x[24:], y[24:]))
    recipe = replace(quick, epochs=20, batch_size=8)
    found = probe(data=data, metric="train", recipe=recipe, start=64)
    assert found.part == "train"
    assert found.baseline.mean > 0.8
    assert found.dimension is not None
    with pytest.raises(ValueError, match="metric='train'"):
        probe(data=data, recipe=recipe)


@pytest.mark.parametrize("together", [ALONE, SIDE_BY_SIDE])
def test_interrupted_and_called_again(probe, found, tmp_path, together):
    wanted = found if together == ALONE else probe(together=together)
    heard: list[Progress] = []

    def stop(progress):
        heard.append(progress)
        if len(heard) == (14 if together == ALONE else 20):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        probe(together=together, folder=tmp_path, progress=stop)
    assert any(tmp_path.rglob("last.pt"))
    assert same(probe(together=together, folder=tmp_path), wanted)
    heard.clear()
    again = probe(together=together, folder=tmp_path, progress=heard.append)
    assert same(again, wanted)
    assert all(progress.completed <= progress.total for progress in heard)
    assert heard[-1].completed == heard[-1].total


def test_runs_that_are_not_finite_are_named_and_left_out(probe, make_net):
    def broken(seed):
        net = make_net(seed)
        if seed == 1:
            with torch.no_grad():
                net[2].bias.fill_(float("inf"))
        return net

    found = probe(broken, seeds=(0, 1, 2), together=ALONE)
    without = probe(seeds=(0, 2), together=ALONE)
    assert found.dimension == without.dimension
    assert found.interval == without.interval
    assert found.crossings[1] is None
    failed = [run for run in (*found.baselines, *found.trained) if run.failed]
    assert {run.seed for run in failed} == {1}
    for run in failed:
        assert any(run.name in note and "finite" in note for note in found.notes)
    assert "2 seeds" in found.headline
    with pytest.raises(ValueError, match="failed with every seed"):
        probe(broken, seeds=(1,))


def test_an_expanded_network(quick):
    """theta is the psi of the expansion: D counts its coordinates."""

    def net(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            compact = nn.Sequential(
                nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, 2)
            )
        return wf.expand(compact, rate=2, seed=seed)

    generator = torch.Generator().manual_seed(0)
    y = torch.arange(96) % 2
    x = torch.randn(96, 1, 8, 8, generator=generator)
    x[y == 1, :, :4] += 1.5
    data = ((x[:64], y[:64]), (x[64:], y[64:]))
    found = intrinsic_dimension(net, data, recipe=quick, seeds=(0, 1), start=4, progress=False)
    psi = sum(p.numel() for p in net(0).parameters())
    assert found.parameters == psi > sum(p.numel() for p in net(0).deploy().parameters())
    assert found.dimension is not None


def test_where_leaves_the_others_out(probe):
    assert probe(where="2.*").parameters == 8 * 3 + 3


class Headed(nn.Module):
    """With a head that is never used."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body, self.spare = nn.Linear(6, 3), nn.Linear(6, 3)

    def forward(self, x):
        return self.body(x)


def test_parameters_without_gradient_are_refused_by_name(probe, tmp_path):
    with pytest.raises(ValueError, match=r"2 parameters .*spare\.weight, spare\.bias.*where="):
        probe(Headed, folder=tmp_path)
    assert not list(tmp_path.iterdir())
    assert probe(Headed, where="body.*").parameters == 21


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"d_max": 0}, "d_max=0: give 1 to 83"),
        ({"d_max": 84}, "d_max=84: give 1 to 83"),
        ({"start": 0}, "start=0"),
        ({"threshold": 0}, r"threshold=0: give a share in \(0, 1\]"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"metric": "test"}, "metric='test'; give one of 'validation', 'train'"),
        ({"kind": "gauss"}, "kind='gauss'; give one of 'srht', 'dense'"),
        ({"resolution": 0}, "resolution=0"),
        ({"seeds": ()}, r"seeds=\(\)"),
        ({"seeds": (1, 1)}, "each once"),
        ({"where": "conv*"}, "matches no trainable tensor"),
        ({"recipe": Recipe(epochs=1, lr=1e-9, crop_padding=0, flip=False)}, "learns nothing"),
    ],
)
def test_bad_options(probe, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        probe(folder=tmp_path, **options)


def test_data_and_outputs_that_do_not_fit(probe, samples):
    train = Examples(samples.train.inputs, torch.zeros_like(samples.train.targets))
    with pytest.raises(ValueError, match="all of one class"):
        probe(data=(train, samples.test))
    with pytest.raises(ValueError, match=r"shape \(8, 2\).* takes \(8, 3\)"):
        probe(nn.Linear(6, 2))


def test_a_plain_network_that_is_not_trained_reliably_is_told(probe, make_net):
    def lame(seed):
        net = make_net(seed)
        if seed == 1:
            with torch.no_grad():
                net[2].weight.mul_(1e-3)
                net[0].bias.sub_(4.0)
        return net

    found = probe(lame, start=64)
    assert found.doubt and found.headline == found.doubt and "not trained reliably" in found.doubt


def test_an_absolute_bar_is_the_accuracy_itself(probe, found):
    low = probe(together=ALONE, threshold=0.7, absolute=True)
    assert (low.bar, low.baselines) == (0.7, found.baselines) and low.dimension
    assert all(a >= 0.7 for a in low.curve[low.bracket[1]])
    at = low.at(0.9, absolute=False)
    assert at.bar == found.bar and at.trained == low.trained
    assert at.at(0.7, absolute=True) == low
    assert IntrinsicDimension.from_record(low.record()) == low


def test_an_absolute_bar_that_the_plain_network_does_not_clear_is_refused(probe, quick):
    with pytest.raises(ValueError, match=r"threshold=1\.0, absolute=True: the plain network"):
        probe(threshold=1.0, absolute=True, recipe=replace(quick, lr=0.02))


def test_a_trained_start_is_refused(probe, make_net, samples):
    net = make_net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(samples.train.inputs), samples.train.targets).backward()
        optimizer.step()
    with pytest.raises(ValueError, match="nothing is to be learnt"):
        probe(net)


def test_a_bar_below_chance_is_refused(probe, samples):
    with pytest.raises(ValueError, match="give a threshold above"):
        probe(threshold=0.3)


def test_written_and_read_again(found, tmp_path):
    found = replace(found, published=12.0)
    page = write_finding(found, tmp_path, title="Intrinsic dimension")
    record = read_record(tmp_path)
    assert record.pop("probe") == "intrinsic-dimension"
    assert record["dimension"] == found.dimension
    assert IntrinsicDimension.from_record(record) == replace(
        found, sessions=tuple(json.loads(json.dumps(found.sessions)))
    )
    text = page.read_text(encoding="utf-8")
    assert "Published: 12." in text
    assert all(note[:40] in text for note in found.notes)
    with (tmp_path / "results.csv").open(encoding="utf-8") as file:
        assert len(list(csv.DictReader(file))) == len(found.baselines) + len(found.trained)
    assert len(found.table().rows) == 1 + len(found.curve)


def test_figures_and_words_of_every_outcome(found, tmp_path):
    """An answer, one of a single seed, a bound from above, from below, and nothing but failures."""
    trained = found.trained
    first = [run for run in trained if run.seed == 0]
    lost = [replace(run, value=None, best=None, failed="it was lost") for run in trained]
    outcomes = {
        "about ": found,
        "no interval": replace(found, seeds=(0,), trained=tuple(first)),
        "at most ": replace(found, trained=tuple(replace(r, value=1.0) for r in trained)),
        "did not reach": replace(found, trained=tuple(replace(r, value=0.1) for r in trained)),
        "in every run.": replace(found, trained=tuple(lost)),
    }
    for words, outcome in outcomes.items():
        path = tmp_path / "figure.png"
        outcome.draw(path)
        assert path.stat().st_size > 10_000
        assert words in outcome.headline
        assert len(outcome.table().rows) == 1 + len(outcome.curve)
