"""The inverted pendulum: episodes, coordinates, the search, what is kept, and the answer."""

import json
import math
import sys
from pathlib import Path

import pytest
import torch
from torch.func import functional_call

from weightfold.probes.finding import read_record, write_finding
from weightfold.probes.pendulum import PendulumDimension, Trial, pendulum_dimension, search
from weightfold.train.progress import Progress

pytest.importorskip("gymnasium")

SMALL = {"population": 16, "generations": 2, "episodes": 1, "test_episodes": 3}


def stacked(*nets: torch.nn.Module) -> dict[str, torch.Tensor]:
    states = [net.state_dict() for net in nets]
    return {name: torch.stack([s[name] for s in states]) for name in states[0]}


def constant(action: int) -> torch.nn.Module:
    """A policy that always pushes to one side."""
    net = search.policy(0)
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].bias.copy_(torch.eye(2)[action])
    return net


def balancing() -> torch.nn.Module:
    """A policy that pushes right where angle and its velocity, x and its velocity say so."""
    net = search.policy(0)
    with torch.no_grad():
        for p in net.parameters():
            p.zero_()
        way = torch.tensor([0.05, 0.2, 1.0, 0.5])
        net[0].weight[0], net[0].weight[1] = way, -way
        net[2].weight[0, 0] = net[2].weight[1, 1] = 1
        net[4].weight[1, 0] = net[4].weight[0, 1] = 1
    return net


def test_the_policy_has_the_published_parameters_and_follows_its_seed():
    net = search.policy(3)
    assert sum(p.numel() for p in net.parameters()) == search.PARAMETERS == 562
    again, other = search.policy(3), search.policy(4)
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), again.parameters(), strict=True))
    assert not torch.equal(net[0].weight, other[0].weight)
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    search.policy(0)
    assert torch.equal(before, torch.random.get_rng_state())


def test_returns_of_known_policies_side_by_side():
    found = search.returns(
        search.policy(0), stacked(constant(0), balancing(), constant(1)), episodes=20, seed=0
    )
    assert found.shape == (3, 20)
    assert found.dtype == torch.float64
    # Pushed to one side from near rest the pole falls after 8 to 10 steps, whatever the side.
    for pushed in (found[0], found[2]):
        assert 8 <= pushed.min() <= pushed.max() <= 11
    assert found[1].eq(500).all()


def test_returns_are_those_of_single_tasks_one_after_another():
    import gymnasium

    net = search.policy(1)
    envs = gymnasium.make_vec(search.TASK, num_envs=5, vectorization_mode="vector_entry_point")
    starts, _ = envs.reset(seed=11)
    envs.close()
    env = gymnasium.make(search.TASK)
    expected = []
    for start in starts:
        env.reset(seed=0)
        env.unwrapped.state = tuple(float(v) for v in start)
        x, steps, over = start, 0, False
        while not over:
            action = int(net(torch.as_tensor(x)).argmax())
            x, _, fallen, late, _ = env.step(action)
            steps, over = steps + 1, fallen or late
        expected.append(steps)
    env.close()
    assert search.returns(net, stacked(net), 5, seed=11).tolist() == [expected]


def test_coordinates_start_at_the_weights_and_move_each_policy():
    net = search.policy(2)
    x = torch.randn(3, 4)
    for dim in (None, 5):
        count, weights = search.coordinates(net, dim, seed=7)
        assert count == (562 if dim is None else 5)
        psi = torch.randn(2, count)
        psi[0] = 0
        with torch.no_grad():
            found = weights(psi)
            first = {name: w[0] for name, w in found.items()}
            torch.testing.assert_close(functional_call(net, first, (x,)), net(x))
        flat = torch.cat([w.flatten(1) for w in found.values()], dim=1)
        start = torch.nn.utils.parameters_to_vector(net.parameters())
        # 5 columns of 562 entries in blocks of 8: P is orthogonal but for the last, cut block.
        moved = (flat[1] - start).norm().item()
        assert moved == pytest.approx(psi[1].norm().item(), rel=0.02)


def test_training_follows_the_seed_and_learns():
    budget = {"population": 16, "generations": 5, "episodes": 1, "test_episodes": 5}
    first = search.train(8, 0, **budget)
    assert first == search.train(8, 0, **budget)
    assert first != search.train(8, 1, **budget)
    untrained = search.policy(search.mixed_seed("policy", 0))
    before = search.returns(untrained, stacked(untrained), 5, seed=0).mean()
    assert first[0] > 2 * before


def test_the_search_ends_when_every_policy_balances(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(
        search, "returns", lambda net, weights, episodes, seed: torch.full((16, episodes), 500.0)
    )
    shares: list[float] = []
    found = search.train(
        3, 0, population=16, generations=4, episodes=2, test_episodes=1, show=shares.append
    )
    assert found == (500, 1)
    assert shares == [0.25]


def test_the_spread_shrinks_onto_the_best(monkeypatch: pytest.MonkeyPatch):
    # Returns that fall with the distance to a target: the search must go there.
    target = torch.tensor([2.0, -1.0, 0.5])
    monkeypatch.setattr(search, "coordinates", lambda net, dim, seed: (3, lambda p: {"psi": p}))
    seen: list[torch.Tensor] = []

    def scores(net, weights, episodes, seed):
        seen.append(weights["psi"])
        return -(weights["psi"] - target).norm(dim=1, keepdim=True)

    monkeypatch.setattr(search, "returns", scores)
    found, _ = search.train(3, 0, population=64, generations=40, episodes=1, test_episodes=1)
    assert -found < 1e-3
    norm = torch.nn.utils.parameters_to_vector(
        search.policy(search.mixed_seed("policy", 0)).parameters()
    ).norm()
    # The first generation is as long as the first weights: a mean square of 64 * 3 normal values.
    ratio = (seen[0].square().sum(dim=1).mean() / norm.square()).item()
    assert abs(ratio - 1) < 5 * math.sqrt(2 / (64 * 3))


def test_results_are_kept_and_the_same_call_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[int | None] = []
    train = search.train

    def stopping(dim, seed, **options):
        calls.append(dim)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return train(dim, seed, **options)

    monkeypatch.setattr("weightfold.probes.pendulum.probe.train", stopping)
    options = {"dims": (3, 1), "seeds": (0, 5), "folder": tmp_path, "progress": False, **SMALL}
    with pytest.raises(KeyboardInterrupt):
        pendulum_dimension(**options)
    found = pendulum_dimension(**options)
    assert calls == [1, 1, 3, 3, 3, None, None]
    assert [(t.dim, t.seed) for t in found.trials] == [(d, s) for d in (1, 3, None) for s in (0, 5)]
    names = sorted(p.name for p in (tmp_path / "runs").iterdir())
    assert names == sorted(f"{d}-seed-{s}.json" for d in (1, 3, "all") for s in (0, 5))
    assert pendulum_dimension(**options).trials == found.trials
    assert len(calls) == 7
    with pytest.raises(FileExistsError, match=r"results of another budget.*'episodes': 1.*: 2"):
        pendulum_dimension(**{**options, "episodes": 2})


def test_progress_rises_to_its_total():
    seen: list[Progress] = []
    pendulum_dimension(dims=(2,), seeds=(0,), progress=seen.append, **SMALL)
    shares = [p.completed / p.total for p in seen]
    assert shares == sorted(shares)
    assert shares[-1] == 1
    assert {p.text for p in seen} == {"2 coordinates, seed 0", "all parameters, seed 0", ""}


def finding(scores: dict, threshold: float = 0.9) -> PendulumDimension:
    trials = tuple(
        Trial(dim, seed, score, 7) for dim, s in scores.items() for seed, score in enumerate(s)
    )
    return PendulumDimension(trials=trials, threshold=threshold, notes=("a note",))


def test_the_answer_is_the_geometric_mean_of_the_seeds_with_its_interval():
    found = finding({2: (450, 100), 4: (440, 480), 8: (500, 500), None: (480, 520)})
    # 90% of 500 is 450: seed 0 reaches it at 2 (not at 4), seed 1 at 4, both from 8 on.
    assert (found.baseline, found.bar) == (500, 450)
    assert found.by_seed == {0: 2, 1: 4}
    assert found.reliable == 8
    assert found.dimension == pytest.approx(math.sqrt(8))
    # Two logarithms log 2 apart: mean +- t sd / sqrt 2 = 12.7062 log 2 / 2, from 1 up.
    assert found.interval == pytest.approx(
        (1, math.sqrt(8) * math.exp(12.7062 * math.log(2) / 2)), rel=1e-4
    )
    assert "in 2.8 coordinates (95% interval 1.0 to 231.2, n = 2)" in found.headline
    assert "smallest of 2, 4, 8 to do so: 2, 4; from 8 on every seed does." in found.headline
    assert "published 4 is of another task" in found.headline
    assert [row[2] for row in found.table().rows] == ["no", "yes", "yes", ""]


def test_a_bar_that_is_not_reached_gives_a_bound():
    found = finding({2: (450, 100), 4: (500, 300), None: (500, 500)})
    assert (found.dimension, found.interval, found.reliable) == (None, None, None)
    assert found.by_seed == {0: 2, 1: None}
    assert found.headline.startswith("In up to 4 coordinates, the most tried, the policy does not")
    assert "to do so: 2, none. " in found.headline


def test_one_seed_has_no_interval():
    found = finding({2: (450,), None: (500,)})
    assert (found.dimension, found.interval) == (2, None)
    assert "in 2.0 coordinates (n = 1)" in found.headline


def test_a_finding_is_written_and_read_again(tmp_path: Path):
    found = finding({2: (450, 100), 4: (440, 480), None: (500, 500)}, threshold=0.8)
    page = write_finding(found, tmp_path, title="pendulum")
    assert "a note" in page.read_text(encoding="utf-8")
    assert PendulumDimension.from_record(read_record(tmp_path)) == found
    assert json.loads((tmp_path / "result.json").read_text())["probe"] == "pendulum"
    lines = (tmp_path / "results.csv").read_text().splitlines()
    assert lines[0] == "dim,seed,score,generations"
    assert len(lines) == 7


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"dims": ()}, r"dims=\(\): give at least one"),
        ({"dims": (2, 2)}, r"dims=\(2, 2\): .*none twice"),
        ({"dims": (0, 2)}, "dims=.*from 1 to 562"),
        ({"dims": (563,)}, "dims=.*562 parameters"),
        ({"seeds": ()}, r"seeds=\(\): give at least one"),
        ({"threshold": 0}, "threshold=0 must be above 0"),
        ({"threshold": 1.1}, "threshold=1.1 must be above 0 and at most 1"),
        ({"population": 15}, "population=15 must be at least 16"),
        ({"generations": 0}, "generations=0 must be at least 1"),
        ({"episodes": 0}, "episodes=0 must be at least 1"),
        ({"test_episodes": 0}, "test_episodes=0 must be at least 1"),
    ],
)
def test_arguments_out_of_range_are_refused(options: dict, says: str):
    with pytest.raises(ValueError, match=says):
        pendulum_dimension(**options, progress=False)


def test_without_gymnasium_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "gymnasium", None)
    with pytest.raises(ImportError, match=r"needs gymnasium: pip install 'weightfold\[rl\]'"):
        pendulum_dimension(progress=False)
