"""What holds for every strategy of the loop: one network, many stacked, many domains."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn

from tasks.cases import Counter, counting
from weightfold.data import Dataset, Examples
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.verb import share
from weightfold.tasks import build
from weightfold.train import Callback, NonFiniteLoss, Options, Recipe, Run, fit, fit_together
from weightfold.train.domains import DomainOptions, fit_domains

RECIPE = Recipe(
    epochs=4, batch_size=16, lr=0.05, schedule="constant", crop_padding=0, flip=False, momentum=0.9
)


class Net(nn.Module):
    def __init__(self, seed, outputs):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.features = nn.Sequential(
                nn.Conv2d(1, 6, 2), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1), nn.ReLU()
            )
            self.dropout = nn.Dropout(0.2)
            self.classifier = nn.Linear(16, outputs)

    def forward(self, x):
        features = self.features(x.unflatten(1, (1, 2, 3))).flatten(1)
        return self.classifier(self.dropout(features))


def data(seed, target: Callable, classes=0):
    generator = torch.Generator().manual_seed(seed)
    parts = [torch.randn(count, 6, generator=generator) for count in (40, 20)]
    return Dataset("made", *(Examples(x, target(x)) for x in parts), classes)


@dataclass(frozen=True)
class Way:
    """A way to train, its networks' state afterwards, and its histories."""

    fit: Callable
    """(folder, callbacks, **options) -> (histories, tensors)"""
    runs: int = 1


def single(folder, tell=False, scale=1.0, **options):
    net = Net(0, 1)
    net.classifier.weight.data *= scale
    task = build("regress", data(0, lambda x: x[:, 0] - x[:, 1]))
    history = fit(
        net, task, RECIPE, folder=folder, device="cpu", progress=tell, options=Options(**options)
    )
    return [history], [net.state_dict()]


def stacked(folder, tell=False, scale=1.0, **options):
    task = build("regress", data(0, lambda x: x[:, 0] - x[:, 1]))
    runs = {f"run-{seed}": Run(Net(seed, 1), task, seed) for seed in (0, 1)}
    for run in runs.values():
        run.net.classifier.weight.data *= scale
    found = fit_together(
        runs,
        RECIPE,
        folder=folder,
        together=2,
        device="cpu",
        progress=tell and (lambda name, row: tell(row)),
        options=Options(**options),
    )
    return list(found.values()), [run.net.state_dict() for run in runs.values()]


def domains(folder, tell=False, scale=1.0, **options):
    torch.manual_seed(0)
    model = Net(0, 4)
    plan = plan_sharing(model, "bottom", fraction=0.5, example_input=torch.zeros(2, 6))
    net = share(model, domains={"a": 2, "b": 3}, plan=plan)
    if scale != 1.0:
        for parameter in net.parameters():
            parameter.data *= scale
    tasks = {
        "a": data(0, lambda x: (x[:, 0] > 0).long(), 2),
        "b": data(1, lambda x: (x[:, 1] > 0).long() + (x[:, 0] > 0), 3),
    }
    history = fit_domains(
        net,
        tasks,
        RECIPE,
        folder=folder,
        device="cpu",
        progress=tell,
        options=DomainOptions(**options),
    )
    return [history], [net.state_dict()]


def ragged(folder, tell=False, scale=1.0, **options):
    """One network that computes its loss, on targets of different shapes."""
    net, task = Counter(0), counting()
    task = replace(task, dataset=replace(task.dataset, validation=None))
    for parameter in net.parameters():
        parameter.data *= scale
    history = fit(
        net, task, RECIPE, folder=folder, device="cpu", progress=tell, options=Options(**options)
    )
    return [history], [net.state_dict()]


WAYS = {
    "single": Way(single),
    "ragged": Way(ragged),
    "stacked": Way(stacked, 2),
    "domains": Way(domains),
}


@pytest.fixture(params=list(WAYS))
def way(request):
    return WAYS[request.param]


def untimed(histories):
    return [
        [replace(row, seconds=0.0, seconds_per_step=None) for row in history.rows]
        for history in histories
    ]


def same(one, other):
    pairs = [(a[name], b[name]) for a, b in zip(one, other, strict=True) for name in a]
    return all(torch.equal(a, b) for a, b in pairs)


class Stop(Exception):
    pass


@pytest.mark.parametrize("every", [None, 2])
@pytest.mark.parametrize("stop", [1, 3])
def test_a_stopped_run_goes_on_bit_for_bit(way, tmp_path, every, stop):
    rows = []

    def tell(row):
        rows.append(row)
        if len(rows) == stop * way.runs:
            raise Stop

    whole = way.fit(tmp_path / "whole", every=every)
    with pytest.raises(Stop):
        way.fit(tmp_path / "stopped", tell, every=every)
    resumed = way.fit(tmp_path / "stopped", every=every)
    assert untimed(resumed[0]) == untimed(whole[0]) and same(resumed[1], whole[1])
    again = way.fit(tmp_path / "stopped", every=every)
    assert untimed(again[0]) == untimed(whole[0]) and same(again[1], whole[1])


def test_without_a_folder_it_is_the_same_run(way, tmp_path):
    written, silent = way.fit(tmp_path / "a"), way.fit(None)
    assert untimed(written[0]) == untimed(silent[0]) and same(written[1], silent[1])


def test_rows_are_where_they_were_asked_for(way, tmp_path):
    histories, _ = way.fit(None, every=5, steps=12, at_start=True, measure=("train",))
    for history in histories:
        assert [row.step for row in history.rows] == [0, 5, 10, 12]
        assert history.steps_per_epoch > 0 and history.finished
        columns = {column for row in history.rows for column in row.values}
        assert f"train_eval_{history.measure.name}" in columns
        assert not any(column.startswith("test_") for column in columns)


def test_until_ends_a_run_early(way):
    histories, _ = way.fit(None, until=lambda history: len(history.rows) == 2)
    assert all(len(history.rows) == 2 and history.finished for history in histories)


class Seen(Callback):
    marks = frozenset({0, 3})

    def __init__(self):
        super().__init__()
        self.state["steps"] = []

    def at_mark(self, context):
        self.state["steps"] = [*self.state.get("steps", []), context.step]

    def on_measure(self, context):
        assert len(context.rows) == len(context.names)
        outputs, targets = next(iter(context.outputs("test")))
        assert len(outputs) == len(targets) == len(context.names)
        assert all(context.tensors(name) for name in context.names)


def test_callbacks_see_the_marks_and_their_state_is_kept(way, tmp_path):
    made = []

    def make():
        made.append(Seen())
        return made[-1]

    for _ in range(2):
        way.fit(tmp_path, callbacks=(make,), save_at=(2,))
    assert [one.state["steps"] for one in made if one.state] in ([[0, 3]], [[0, 3], [0, 3]])
    assert len(list(tmp_path.rglob("step-2.safetensors"))) == way.runs


def test_a_loss_that_is_not_finite_ends_the_run_and_what_was_saved_stays(way, tmp_path):
    if way.runs == 1:
        with pytest.raises(NonFiniteLoss, match="epoch 1"):
            way.fit(tmp_path, scale=1e38)
    else:
        histories, _ = way.fit(tmp_path, scale=1e38)
        assert all("epoch 1" in h.failed and not h.finished for h in histories)
    assert not list(tmp_path.rglob("last.pt"))


def test_another_run_is_refused(way, tmp_path):
    way.fit(tmp_path, steps=2)
    with pytest.raises(FileExistsError, match="steps: 2 there, 3 now"):
        way.fit(tmp_path, steps=3)
    with pytest.raises(FileExistsError, match="weights"):
        way.fit(tmp_path, steps=2, scale=2.0)


def test_one_process_at_a_time(way, tmp_path):
    def tell(row):
        with pytest.raises(FileExistsError, match="another process"):
            way.fit(tmp_path)
        raise Stop

    with pytest.raises(Stop):
        way.fit(tmp_path, tell)


def test_a_part_that_is_not_there(way):
    with pytest.raises(ValueError, match="measure='validation'"):
        way.fit(None, measure=("validation",))
