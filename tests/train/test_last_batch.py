"""No step trains on one example where there are more: batch norm may have nothing to normalise."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, Examples
from weightfold.tasks.registry import as_task


def odd(count: int = 33) -> Dataset:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 3, 8, 8), generator=generator, dtype=torch.uint8)
    examples = Examples(pixels, torch.arange(count) % 4)
    return Dataset("odd", examples, examples, 4, (0.5,) * 3, (0.2,) * 3)


def net(seed: int = 0) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.BatchNorm1d(8), nn.Linear(8, 4))


def recipe(size: int) -> wf.Recipe:
    return wf.Recipe(epochs=1, batch_size=size, crop_padding=0, flip=False)


@pytest.mark.parametrize("size", [2, 4, 16, 32])
@pytest.mark.parametrize("strategy", ["alone", "stacked"])
def test_every_strategy_trains_on_odd_sets(strategy, size):
    if strategy == "alone":
        history = wf.fit(net(), odd(), recipe(size), progress=False)
        assert history.finished
        return
    data = odd()
    runs = {str(seed): wf.train.Run(net(seed), data, seed) for seed in range(2)}
    found = wf.fit_together(runs, recipe(size), together=2, progress=False)
    assert all(history.finished for history in found.values())


def test_domains_too():
    plain = nn.Sequential(
        nn.Conv2d(3, 4, 8), nn.Flatten(), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 4)
    )
    plan = wf.plan_sharing(plain, fraction=0.5, example_input=torch.zeros(1, 3, 8, 8))
    shared = wf.share(plain, {"a": 4, "b": 4}, plan)
    assert wf.fit_domains(shared, {"a": odd(33), "b": odd(17)}, recipe(2), progress=False).finished


@pytest.mark.parametrize(
    ("count", "size", "processes", "batches"),
    [(33, 2, 1, 16), (33, 32, 1, 1), (3, 8, 1, 1), (6, 4, 1, 2), (6, 4, 2, 1), (8, 4, 2, 2)],
)
def test_what_is_left_out(count, size, processes, batches):
    found = as_task(odd(count)).batches("train", batch_size=size, processes=processes)
    assert len(found) == batches
    assert all(len(y) >= 2 * processes or len(found) == 1 for _, y in found.epoch(0))


def test_batches_of_one_are_refused_before_the_work(tmp_path):
    given = net()
    state = {name: tensor.clone() for name, tensor in given.state_dict().items()}
    with pytest.raises(ValueError, match="batch_size=1 with 33 training examples"):
        wf.fit(given, odd(), recipe(1), folder=tmp_path / "run", progress=False)
    assert all(torch.equal(state[name], t) for name, t in given.state_dict().items())
    assert given.training and not (tmp_path / "run").exists()
    plain = nn.Sequential(nn.Flatten(), nn.Linear(192, 4))
    assert wf.fit(plain, odd(3), recipe(1), progress=False).finished


@pytest.mark.parametrize("name", ["last.pt", "run.json", "history.json"])
@pytest.mark.parametrize("seed", [0, 1])
def test_damaged_files_of_a_run_are_named_even_of_another(name, seed, tmp_path):
    def go(seed: int, stop: bool) -> None:
        def told(row: wf.train.Row) -> None:
            if stop and row.epoch == 1:
                raise KeyboardInterrupt

        longer = wf.Recipe(epochs=3, batch_size=16, crop_padding=0, flip=False)
        options = wf.Options(save_seconds=0)
        wf.fit(net(seed), odd(), longer, folder=tmp_path, progress=told, options=options)

    with pytest.raises(KeyboardInterrupt):
        go(0, stop=True)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises((ValueError, RuntimeError, FileExistsError), match=name):
        go(seed, stop=False)
