"""Verdicts of the probes' experiments on findings made up: bounds, failed runs, wide intervals."""

from types import SimpleNamespace

import pytest

from weightfold.lab.results import Outcome as Made
from weightfold.lab.results import Results
from weightfold.papers import experiment
from weightfold.papers._li2018 import equal, more
from weightfold.probes.intrinsic.finding import IntrinsicDimension, Trained
from weightfold.probes.layers.finding import LayerReset
from weightfold.probes.layers.measurements import Cell
from weightfold.probes.layers.units import Unit
from weightfold.probes.tickets import LotteryTicket
from weightfold.probes.tickets.outcomes import Outcome
from weightfold.train import Recipe


def results(name, records):
    """An experiment's results from label -> a finding, or histories by seed."""
    found = experiment(name)
    outcomes = {}
    for label, runs in found.runs("paper").items():
        if label in records:
            record = records[label]
            given = record if isinstance(record, list) else [record]
            outcomes[label] = tuple(map(Made, runs, given))
    return Results(found, "paper", outcomes)


def verdict(name, start, records):
    (claim,) = [c for c in experiment(name).claims if c.text.startswith(start)]
    return claim.check(results(name, records))


def dimension(curve, parameters=1000, seeds=3):
    """A finding of accuracies by dimension, one for all seeds or one each; the bar is at 0.9."""
    rows = {d: a if isinstance(a, list) else [a] * seeds for d, a in curve.items()}
    return IntrinsicDimension(
        network="Net",
        data="data",
        parameters=parameters,
        metric="validation",
        part="test",
        examples=100,
        threshold=0.9,
        kind="srht",
        seeds=tuple(range(seeds)),
        baselines=tuple(Trained(None, s, 0.1, 1.0) for s in range(seeds)),
        trained=tuple(
            Trained(d, s, 0.1, a, failed="" if a is not None else "its loss was not finite")
            for d, row in rows.items()
            for s, a in enumerate(row)
        ),
        recipe=Recipe(),
    )


SMALL = dimension({50: 0.5, 100: [0.9, 0.91, 0.92]})
LARGE = dimension({500: 0.5, 1000: [0.9, 0.91, 0.92]})
UNREACHED = dimension({50: 0.5, 100: 0.6})


@pytest.mark.parametrize(
    ("a", "b", "judged"),
    [
        (LARGE, SMALL, "holds"),
        (SMALL, LARGE, "does not hold"),
        (SMALL, UNREACHED, "undecided"),
        # Above 100, which does not refute that it is above 1000.
        (UNREACHED, LARGE, "undecided"),
    ],
)
def test_more_dimensions(a, b, judged):
    labels = {"MNIST: FC": a, "MNIST: LeNet": b}
    found = more(*labels)(results("li2018-intrinsic", labels))
    assert found.judged == judged


def test_a_seed_whose_runs_failed_is_left_out():
    failed = dimension({50: [0.5, 0.5, None], 100: [0.9, 0.91, None], 800: 0.95})
    assert failed.crossings[2] == 800  # the first that did not fail
    lost = dimension({50: [0.5, 0.5, None], 100: [0.9, 0.91, None]})
    assert lost.crossings[2] is None and lost.dimension is not None
    labels = {"MNIST: FC": lost, "MNIST: LeNet": SMALL}
    found = equal(*labels)(results("li2018-intrinsic", labels))
    assert found.judged == "holds" and "2 seeds" in found.numbers


def test_an_unreached_dimension_is_not_dropped_from_the_grid():
    same = {"FC 1 x 50": dimension({50: 0.5, 100: 0.9}, 1000), "FC 2 x 400": SMALL}
    wide = {**same, "FC 5 x 400": dimension({50: 0.5, 100: 0.9}, 24_000)}
    assert verdict("li2018-grid", "Parameters", wide).judged == "holds"
    open_ended = {**wide, "FC 3 x 50": UNREACHED}
    assert verdict("li2018-grid", "Parameters", open_ended).judged == "undecided"


@pytest.mark.parametrize(
    ("direct", "judged"),
    [
        ([0.60, 0.61, 0.60], "holds"),
        ([0.60, 0.10, 0.69], "undecided"),
        ([0.80, 0.81, 0.80], "does not hold"),
    ],
)
def test_small_networks_are_judged_over_seeds(direct, judged):
    histories = [SimpleNamespace(last_value=a) for a in direct]
    beside = dimension({500: 0.7, 1000: 0.7, 2000: 0.95})
    records = {"FC 2 x 200": beside, "direct 1 x 1": histories}
    assert verdict("li2018-direct", "With as many", records).judged == judged


def reset(rises, drawn, seeds=3, bn="keep"):
    """Layers whose test error rises so, one for each seed, from 0.1."""
    cells = [Cell("", 5, s, None, 0.1, 0.1) for s in range(seeds)]
    for index, (first, anew) in enumerate(zip(rises, drawn, strict=True)):
        for s in range(seeds):
            cells.append(Cell(f"fc{index}", 0, s, None, 0.1 + first[s], 0.1))
            cells.append(Cell(f"fc{index}", "drawn anew", s, 0, 0.1 + anew[s], 0.1))
    names = [f"fc{index}" for index in range(len(rises))]
    return LayerReset(
        network="Net",
        data="data",
        bn=bn,
        batch_norms=1,
        epochs=(0, 5),
        seeds=tuple(range(seeds)),
        units=tuple(Unit(name, (name,), (f"{name}.weight",), 10) for name in names),
        cells=tuple(cells),
        distances=(),
        chance=0.9,
        recipe=None,
    )


HIGH, LOW, WIDE = [0.4, 0.41, 0.42], [0.0, 0.01, 0.0], [0.0, 0.3, 0.02]


@pytest.mark.parametrize(
    ("anew", "judged"), [(HIGH, "1 holds"), (WIDE, "1 undecided"), (LOW, "1 does not")]
)
def test_drawn_anew_wants_the_whole_interval(anew, judged):
    records = {"MNIST: MLP 3 x 256": reset([HIGH, LOW], [HIGH, anew])}
    found = verdict("zhang2019-layers", "With any layer", records)
    assert found.text.endswith(f": of 4 comparisons {judged}, 3 not run")


@pytest.mark.parametrize(
    ("second", "judged"), [(LOW, "holds"), (WIDE, "undecided"), (HIGH, "does not hold")]
)
def test_policies_differ_where_one_says_critical_and_one_robust(second, judged):
    policies = {"keep": HIGH, "source": HIGH, "recalibrate": second}
    records = {
        f"CIFAR-10: VGG-11, batch norm {bn}": reset([rise, HIGH], [HIGH, HIGH], bn=bn)
        for bn, rise in policies.items()
    }
    claim = "Ours: batch norm's policy decides what is critical (VGG)"
    assert verdict("zhang2019-layers", claim, records).judged == judged


def test_robustness_is_drawn_against_depth(tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        "weightfold.probes.layers.figures.robustness_by_depth",
        lambda found, path: drawn.append(found),
    )
    shallow, deep, vgg = reset([HIGH], [HIGH]), reset([LOW] * 3, [HIGH] * 3), reset([LOW], [HIGH])
    records = {
        "MNIST: MLP 1 x 256": shallow,
        "MNIST: MLP 6 x 256": deep,
        "CIFAR-10: VGG-11, batch norm recalibrate": vgg,
        "CIFAR-10: VGG-11, batch norm keep": reset([WIDE], [HIGH]),
    }
    found = results("zhang2019-layers", records)
    found.experiment.draw(found, tmp_path / "figure.png")
    assert drawn == [{"MLP": [shallow, deep], "VGG": [vgg]}]
    found = results("zhang2019-layers", {"CIFAR-10: VGG-11, batch norm keep": vgg})
    found.experiment.draw(found, tmp_path / "figure.png")
    assert (tmp_path / "figure.png").exists() and len(drawn) == 1


def ticket(kind, level, seed, iteration):
    left = {0: 1.0, 1: 0.51, 2: 0.21}[level]
    return Outcome(kind, level, seed, 0, left, iteration, 1000, 0.9, 0.9, 1.0, 1.0, ())


@pytest.mark.parametrize(
    ("full", "early", "expected"),
    [
        (800, 400, (0.5, "")),
        (1000, 500, (0.5, "<")),
        (800, 1000, (1.25, ">")),
        (1000, 1000, None),
    ],
)
def test_the_ratio_of_early_stops_says_of_what_it_is_a_bound(full, early, expected):
    outcomes = [ticket("full", 0, s, full) for s in range(3)]
    outcomes += [ticket("ticket", level, s, early) for s in range(3) for level in (1, 2)]
    found = LotteryTicket(outcomes=tuple(outcomes), trials=3, weights=100)
    records = {"MNIST: LeNet-300-100": found}
    ours = results("frankle2019-tickets", records).estimate("MNIST: LeNet-300-100", "speed21")
    assert (ours and (ours.value, ours.bound)) == expected
