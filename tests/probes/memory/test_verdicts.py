import pytest

from weightfold.probes.memory.fits import Fit, Fits, Line
from weightfold.probes.memory.verdicts import RANDOM, TRUE, verdicts


def fit(line, seed, zero, *, epochs=50.0, test=0.1, train=None, critical=None):
    return Fit(
        line=line,
        seed=seed,
        examples=100,
        labels_changed=0,
        inputs_changed=0,
        zero_epoch=zero,
        zero_step=None if zero is None else int(8 * zero),
        epochs=epochs if zero is None else zero,
        train_accuracy=(1.0 if zero is not None else 0.9) if train is None else train,
        test_accuracy=test,
        critical=critical,
        seconds=1.0,
        curve=((0.0, 0.1, 0.1), (epochs if zero is None else zero, 1.0, test)),
    )


def found(*fits, chance=0.1):
    return {verdict.claim.split(",")[0]: verdict for verdict in verdicts(Fits(fits), chance)}


def runs(line, zeros, **more):
    return [fit(line, seed, zero, **more) for seed, zero in enumerate(zeros)]


def later(true, random):
    return found(*runs(TRUE, true), *runs(RANDOM, random))[
        "Random labels are fitted later than true ones"
    ]


def test_later_is_judged_on_the_ratio_paired_by_seed():
    # Each seed takes twice as long, though seeds differ more than that.
    verdict = later([10, 40, 20], [21, 78, 41])
    assert verdict.holds == "holds" and "2.03 times" in verdict.numbers
    assert later([10, 40, 20], [5, 100, 20]).holds == "undecided"
    assert later([10, 40, 20], [9, 35, 18.2]).holds == "does not hold"
    assert later([10, 40, 20], [9, 35, 22]).holds == "undecided"
    assert later([10], [20]).holds == "undecided"


def test_a_bound_that_was_tried_counts_as_at_least_that():
    verdict = later([10, 11, 12], [None, None, None])
    assert verdict.holds == "holds" and "> 50 epochs against 11.0" in verdict.numbers
    # A network not fitted to true labels says nothing: it may have needed a million epochs.
    assert later([None, None], [20, 20]).holds == "undecided"
    assert later([60, None], [50, 50]).holds == "undecided"  # one seed
    # Given up when true labels were just fitted: it may have come later, or at once.
    verdict = later([50, 50], [None, None])
    assert verdict.holds == "undecided" and "at least 1.00 times" in verdict.numbers


def test_a_network_that_fits_true_labels_from_the_start_has_no_ratio():
    assert later([0.0, 0.0], [20, 30]).holds == "undecided"
    assert later([0.0, 10, 11], [30, 20, 23]).holds == "holds"
    assert grows(0.0, 10, 20, 45, seeds=1).holds == "undecided"


def test_all_conditions_fitted():
    fits = [*runs(TRUE, [5, 6]), *runs(Line("gaussian"), [9, 9])]
    claim = "Every condition is fitted to zero training error"
    assert found(*fits)[claim].holds == "holds"
    verdict = found(*fits, *runs(RANDOM, [30, None]))[claim]
    assert verdict.holds == "undecided"
    assert "random labels > 50 in 1 of 2, else 30.0" in verdict.numbers
    # Variants are judged on their own.
    assert found(*fits, *runs(Line("random-labels", variant="x"), [None]))[claim].holds == "holds"


@pytest.mark.parametrize(
    ("accuracies", "holds"),
    [
        ([0.098, 0.103, 0.101], "holds"),
        ([0.08, 0.12, 0.10], "undecided"),
        ([0.125, 0.126, 0.124], "does not hold"),
        ([0.1], "undecided"),
    ],
)
def test_at_chance_wants_the_whole_interval_near(accuracies, holds):
    fits = [fit(RANDOM, seed, 9, test=test) for seed, test in enumerate(accuracies)]
    assert (
        found(*fits)["After training on random labels the test accuracy is that of chance"].holds
        == holds
    )


def grows(*by_fraction, seeds=3):
    lines = [TRUE, *(Line("gaussian", f) for f in (0.25, 0.5, 1.0))]
    fits = [
        fit(line, seed, None if zero is None else zero + seed % 2)
        for line, zero in zip(lines, by_fraction, strict=True)
        for seed in range(seeds)
    ]
    return found(*fits)["The more noise"]


def test_more_noise_is_later():
    assert grows(5, 10, 20, 45).holds == "holds"
    assert grows(5, 10, 20, None).holds == "holds"
    assert grows(5, 10, None, None).holds == "undecided"
    assert grows(None, None, None, None).holds == "undecided"
    # Rising on the whole, but not from each to the next.
    assert grows(5, 20, 10, 45).holds == "undecided"
    assert grows(40, 20, 10, 5).holds == "does not hold"
    assert grows(5, 10, 20, 45, seeds=1).holds == "undecided"
    assert "The more noise" not in found(*runs(TRUE, [5]), *runs(Line("gaussian"), [9]))


def test_regularisers_and_critical_samples():
    decay, dropout = (Line("random-labels", variant=name) for name in ("decay", "dropout"))
    claim = "Explicit regularisation does not keep the network from fitting random labels"
    assert found(*runs(decay, [5, 6]))[claim].holds == "holds"
    assert found(*runs(decay, [5, 6]), *runs(dropout, [None]))[claim].holds == "undecided"
    fits = [fit(TRUE, s, 5, critical=0.01 + s / 1000) for s in range(3)]
    fits += [fit(RANDOM, s, 9, critical=0.15 + s / 500) for s in range(3)]
    assert found(*fits)["Trained on random labels"].holds == "holds"
    fits = [fit(n, s, 5, critical=0.1) for n in (TRUE, RANDOM) for s in range(3)]
    assert found(*fits)["Trained on random labels"].holds == "does not hold"
