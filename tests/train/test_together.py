from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, Examples
from weightfold.train import Callback, Recipe, Run
from weightfold.train import fit_together as fit_in_groups
from weightfold.train.together import SIDE_BY_SIDE, group_size

RECIPE = Recipe(
    epochs=3, batch_size=16, lr=0.1, schedule="constant", crop_padding=0, flip=False, momentum=0.5
)


def fit_together(runs, recipe, *, folder=None, together="auto", progress=False, **options):
    return fit_in_groups(
        runs,
        recipe,
        folder=folder,
        together=together,
        device="cpu",
        progress=progress,
        options=replace(SIDE_BY_SIDE, **options),
    )


def samples(seed=0, train=40, channels=None):
    generator = torch.Generator().manual_seed(seed)

    def part(count):
        x = torch.randn(count, 6, generator=generator)
        y = (x[:, 0] + x[:, 1] > 0).long() + (x[:, 2] > 0).long()
        return Examples(x, y)

    return Dataset("data", part(train), part(30), 3)


class Double(nn.Sequential):
    """In float64, so that vmapped and single runs agree to the last digits; or as it is made."""

    def forward(self, x):
        return super().forward(x.to(self[0].weight.dtype))


def net(seed, dropout=0.0, norm=False):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Linear(6, 8), nn.BatchNorm1d(8)] if norm else [nn.Linear(6, 8)]
        return Double(*layers, nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)).double()


def starts(data, seeds=(0, 1, 2), **options):
    return {f"seed{s}": Run(net(s, **options), data, s) for s in seeds}


def weights(begin):
    return {
        name: {n: t.clone() for n, t in s.net.state_dict().items()} for name, s in begin.items()
    }


@pytest.mark.parametrize("charted", [False, True])
@pytest.mark.parametrize(
    "changes",
    [{}, {"weight_decay": 0.1, "decay_on": "theta-theta0"}, {"clip_norm": 0.3, "nesterov": True}],
)
def test_runs_together_are_runs_alone(changes, charted):
    data, recipe = samples(), replace(RECIPE, **changes)
    both = []
    for together in (1, 3):
        begin = starts(data, norm=not charted)
        if charted:
            begin = {
                n: replace(s, net=wf.subspace(s.net, 20, seed=s.seed)) for n, s in begin.items()
            }
        runs = fit_together(begin, recipe, together=together, measure=("test", "train"))
        both.append((runs, weights(begin)))
    (alone, one), (stacked, other) = both
    for name in alone:
        assert len(alone[name].rows) == 4
        for a, b in zip(alone[name].rows, stacked[name].rows, strict=True):
            assert a.step == b.step
            assert known(a) == pytest.approx(known(b), rel=1e-10)
        for key, tensor in one[name].items():
            torch.testing.assert_close(other[name][key], tensor, rtol=0, atol=1e-12)


def test_it_is_the_optimizers_own_arithmetic():
    data, begin = samples(), starts(samples(), seeds=[3])
    alone = net(3)
    optimizer = torch.optim.SGD(alone.parameters(), lr=0.1, momentum=0.5)
    fit_together({"seed3": replace(begin["seed3"], data=data)}, RECIPE, steps=1)
    from weightfold.data.batches import generator_of

    order = torch.randperm(40, generator=generator_of(3, 0))[:16]
    x, y = data.train.inputs[order].double(), data.train.targets[order]
    nn.functional.cross_entropy(alone(x), y).backward()
    optimizer.step()
    for ours, theirs in zip(begin["seed3"].net.parameters(), alone.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-14)


class Normed(nn.Module):
    """With what vmap does not know, or takes for another thing."""

    def __init__(self, momentum, replaces):
        super().__init__()
        self.norm, self.out, self.replaces = (
            nn.BatchNorm1d(6, momentum=momentum),
            nn.Linear(6, 3),
            replaces,
        )
        self.register_buffer("seen", torch.zeros(6))

    def forward(self, x):
        if self.replaces:
            self.seen = self.seen + x.detach().sum(dim=0)
        return self.out(self.norm(x))


@pytest.mark.parametrize(
    ("momentum", "replaces", "size"), [(0.1, False, 5), (None, False, 1), (0.1, True, 5)]
)
def test_what_no_batch_can_run_is_trained_one_by_one(momentum, replaces, size):
    data, seeds = samples(), [0, 1]
    assert group_size(Normed(momentum, replaces), data, 5, "auto", "cpu") == size
    both = {f"seed{s}": Run(Normed(momentum, replaces), data, s) for s in seeds}
    alone = {n: replace(s, net=deepcopy(s.net)) for n, s in both.items()}
    fit_together(both, RECIPE)
    for name, start in alone.items():
        fit_together({name: start}, RECIPE)
        for key, tensor in start.net.state_dict().items():
            torch.testing.assert_close(both[name].net.state_dict()[key], tensor)


def known(row):
    return {column: value for column, value in row.values.items() if value is not None}


def untimed(runs):
    return {
        n: [replace(row, seconds=0.0, seconds_per_step=None) for row in run.rows]
        for n, run in runs.items()
    }


class Stop(Exception):
    pass


@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize("stop", [1, 4, 6])
def test_a_stopped_call_goes_on_bit_for_bit(tmp_path, together, stop):
    options = {"together": together, "every": 2, "save_seconds": 0.0}
    whole = starts(samples(), seeds=[0, 1], dropout=0.3)
    whole = {n: replace(s, net=s.net.float()) for n, s in whole.items()}
    expected = fit_together(whole, RECIPE, **options)

    heard = []

    def progress(name, row):
        heard.append((name, row.step))
        if len(heard) == stop:
            raise Stop

    def begin():
        return {
            n: replace(s, net=s.net.float())
            for n, s in starts(samples(), seeds=[0, 1], dropout=0.3).items()
        }

    with pytest.raises(Stop):
        fit_together(begin(), RECIPE, folder=tmp_path, progress=progress, **options)
    again = begin()
    runs = fit_together(again, RECIPE, folder=tmp_path, **options)
    assert untimed(runs) == untimed(expected)
    for a, b in zip(weights(again).values(), weights(whole).values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    third = begin()
    unheard = []
    finished = fit_together(
        third, RECIPE, folder=tmp_path, progress=lambda *a: unheard.append(a), **options
    )
    assert not unheard
    assert untimed(finished) == untimed(runs)
    for a, b in zip(weights(third).values(), weights(again).values(), strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)


def test_other_runs_are_not_taken_for_these(tmp_path):
    fit_together(starts(samples()), RECIPE, folder=tmp_path, together=3)
    with pytest.raises(FileExistsError, match=r"recipe\.lr"):
        fit_together(starts(samples()), replace(RECIPE, lr=0.2), folder=tmp_path, together=3)
    with pytest.raises(FileExistsError, match="data"):
        fit_together(starts(samples(seed=1)), RECIPE, folder=tmp_path, together=3)
    other = {n: replace(s, net=net(s.seed + 9)) for n, s in starts(samples()).items()}
    with pytest.raises(FileExistsError, match="weights"):
        fit_together(other, RECIPE, folder=tmp_path, together=3)
    # Of the same tensors: another activation, what is trained, the normalisation.
    bent, frozen, scaled = (starts(samples()) for _ in range(3))
    for name in bent:
        bent[name].net[1] = nn.Tanh()
        frozen[name].net[0].requires_grad_(False)
        scaled[name] = replace(scaled[name], data=replace(samples(), mean=(0.0,), std=(2.0,)))
    for changed, words in ((bent, "structure"), (frozen, "structure"), (scaled, "data")):
        with pytest.raises(FileExistsError, match=words):
            fit_together(changed, RECIPE, folder=tmp_path, together=3)


def test_projections_of_two_kinds_are_two_runs(tmp_path):
    def charted(kind):
        return {"a": Run(wf.subspace(net(0), 9, kind=kind), samples(), 0)}

    fit_together(charted("srht"), RECIPE, folder=tmp_path)
    with pytest.raises(FileExistsError, match="structure"):
        fit_together(charted("dense"), RECIPE, folder=tmp_path)


@pytest.mark.parametrize("together", [1, 3])
def test_a_run_that_diverges_is_named_and_spoils_no_other(together):
    data = samples()
    begin = starts(data)
    with torch.no_grad():
        begin["seed1"].net[0].weight.mul_(1e200)
    runs = fit_together(begin, RECIPE, together=together)
    fine = fit_together(starts(data), RECIPE, together=together)
    assert "epoch 1, step 2" in runs["seed1"].failed
    for name in ("seed0", "seed2"):
        assert not runs[name].failed
        assert runs[name].last() == fine[name].last()


def test_a_run_whose_last_step_diverges_has_failed_too():
    begin = starts(samples(), seeds=[0, 1])
    with torch.no_grad():
        begin["seed1"].net[0].weight.mul_(1e200)
    runs = fit_together(begin, RECIPE, together=2, steps=1)
    assert "after step 1" in runs["seed1"].failed
    assert not runs["seed0"].failed


def test_until_ends_each_run_at_its_own_point():
    runs = fit_together(
        starts(samples()),
        RECIPE,
        together=3,
        every=1,
        until=lambda run: run.rows[-1].step >= (2 if run.name == "seed0" else 4),
    )
    assert [run.rows[-1].step for run in runs.values()] == [2, 4, 4]


class Counting(Callback):
    """Sums the logits of the training set over all points."""

    def on_measure(self, view):
        total = sum(logits.sum().item() for logits, _ in view.outputs("train"))
        self.state["total"] = self.state.get("total", 0.0) + total
        self.state["points"] = self.state.get("points", 0) + 1
        assert view.tensors("seed1").keys() == net(0).state_dict().keys()


def test_an_observer_sees_every_point_and_its_state_is_kept(tmp_path):
    made = []

    def observer():
        made.append(Counting())
        return made[-1]

    for _ in range(2):
        fit_together(starts(samples()), RECIPE, together=3, folder=tmp_path, callbacks=(observer,))
    assert made[0].state == made[1].state
    assert made[0].state["points"] == 4


def test_runs_may_have_data_of_their_own():
    data = {0: samples(), 1: samples(seed=5)}
    begin = {f"seed{s}": Run(net(s), data[s], s) for s in data}
    both = fit_together(begin, RECIPE, together=2, measure=("train", "test"))
    for seed in data:
        alone = fit_together(
            {"one": Run(net(seed), data[seed], seed)}, RECIPE, measure=("train", "test")
        )["one"]
        assert alone.last() == both[f"seed{seed}"].last()


def test_an_epoch_shows_each_example_once_but_for_a_small_rest():
    run = fit_together(starts(samples(train=40), seeds=[0]), RECIPE)["seed0"]
    assert run.steps_per_epoch == 3  # 16 + 16 + 8
    run = fit_together(starts(samples(train=39), seeds=[0]), RECIPE)["seed0"]
    assert run.steps_per_epoch == 2
    run = fit_together(starts(samples(train=5), seeds=[0]), RECIPE)["seed0"]
    assert run.steps_per_epoch == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"every": 0}, "every=0"),
        ({"steps": 0}, "steps=0"),
        ({"together": 0}, "together=0"),
        ({"recipe": replace(RECIPE, flip=True)}, "flip=True"),
        ({"recipe": replace(RECIPE, schedule="cosine"), "steps": 99}, "steps=99"),
        ({"starts": {}}, "runs is empty"),
        ({"validation": 5}, "validation=5"),
        ({"devices": 2}, "devices=2"),
    ],
)
def test_wrong_arguments(options, words):
    options = {"starts": starts(samples()), "recipe": RECIPE} | options
    with pytest.raises(ValueError, match=words):
        fit_together(options.pop("starts"), options.pop("recipe"), **options)


def test_networks_of_two_architectures_are_refused():
    begin = starts(samples())
    begin["seed1"] = replace(begin["seed1"], net=net(1, norm=True))
    with pytest.raises(ValueError, match="network 1 differs"):
        fit_together(begin, RECIPE, together=3)
    data = samples(train=20)
    with pytest.raises(ValueError, match="training sets differ"):
        fit_together({**starts(samples(), [0]), "b": Run(net(1), data, 1)}, RECIPE, together=2)


def test_large_inputs_are_measured_a_few_at_a_time(monkeypatch):
    expected = fit_together(starts(samples(), seeds=[0]), RECIPE)["seed0"]
    begin, sizes = starts(samples(), seeds=[0]), []
    monkeypatch.setattr("weightfold.tasks.task.EVALUATION_VALUES", 6 * 7)

    def note(module, given):
        sizes.append(len(given[0]))

    with nn.modules.module.register_module_forward_pre_hook(note):
        run = fit_together(begin, replace(RECIPE, batch_size=4), steps=1)["seed0"]
    assert max(sizes) == 7
    assert known(run.rows[0]) == pytest.approx(known(expected.rows[0]), rel=1e-12)
