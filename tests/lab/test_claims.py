import pytest

from weightfold.lab.claims import above, all_of, at_most, below
from weightfold.lab.experiment import experiment
from weightfold.lab.outcomes import Outcome, Results
from weightfold.train.history import History, Row


def history(accuracy, train_error=0.5, step=0.1):
    right = 1 - train_error
    values = {"train_accuracy": right, "test_accuracy": accuracy, "train_eval_accuracy": right}
    row = Row(1, 0.1, 1.0, step, values)
    return History((row,), "test", finished=True)


def results_of(name, preset, histories):
    """Results with a made-up history for each seed of some lines."""
    found = experiment(name)
    outcomes = {}
    for label, cells in found.cells(preset).items():
        made = histories.get(label, [])
        made = [*made, *[None] * (len(cells) - len(made))]
        outcomes[label] = tuple(
            Outcome(cell, found.columns[0], h) for cell, h in zip(cells, made, strict=True)
        )
    return Results(found, preset, found.columns[0], outcomes)


def table9(**accuracies):
    lines = {"base": "SmallNet", "r025": "CK r=0.25", "r1": "CK r=1", "r4": "CK r=4"}
    histories = {lines[k]: [history(a) for a in v] for k, v in accuracies.items()}
    return results_of("guo2020-table9", "cpu", histories)


BASE = [0.70, 0.71, 0.72]
CK = above("CK r=4", "SmallNet", "best_accuracy")


@pytest.mark.parametrize(
    ("ours", "holds"),
    [
        ([0.73, 0.741, 0.752], "holds"),
        ([0.70, 0.72, 0.73], "unclear"),
        ([0.69, 0.70, 0.71], "does not hold"),
        (BASE, "does not hold"),
        ([0.75], "unclear"),
        ([], "not run"),
    ],
)
def test_verdicts(ours, holds):
    results = table9(base=BASE, r4=ours)
    assert CK(results).holds == holds
    opposite = below("SmallNet", "CK r=4", "best_accuracy")(results)
    assert opposite == CK(results)


def test_numbers_are_the_paired_difference_and_the_papers():
    from scipy.stats import ttest_rel

    ours = [0.73, 0.741, 0.752]
    interval = ttest_rel([100 * a for a in ours], [100 * b for b in BASE]).confidence_interval()
    wanted = f"95% [{interval.low:+.2f}, {interval.high:+.2f}], 3 seeds"
    verdict = CK(table9(base=BASE, r4=ours))
    assert f"+3.10, {wanted}" in verdict.numbers
    assert "paper +1.64" in verdict.numbers


def test_only_seeds_that_both_lines_have_are_compared():
    assert "(one seed)" in CK(table9(base=BASE, r4=[0.8])).numbers


def test_all_of_takes_the_worst_of_those_run():
    base, far, near = BASE, [0.60, 0.61, 0.62], [0.69, 0.72, 0.70]
    lower = experiment("guo2020-table9").claims[0].check
    true = lower(table9(base=base, r025=[0.60, 0.611, 0.62]))
    assert true.holds == "holds"
    assert "2 of 3 comparisons not run" in true.numbers
    assert lower(table9(base=far, r025=near)).holds == "does not hold"
    both = all_of(CK, above("CK r=1", "SmallNet", "best_accuracy"))
    assert both(table9(base=base, r1=far, r4=[0.8, 0.81, 0.82])).holds == "does not hold"
    assert both(table9(base=base)).holds == "not run"


def test_table7_claims():
    names = [f"k=9, 80%: {n}" for n in ("SmallNet", "ExpandNet-CK")]
    made = [[history(0.4, 0.74), history(0.41, 0.74)], [history(0.5, 0.77), history(0.51, 0.77)]]
    for order, holds in ((1, "holds"), (-1, "does not hold")):
        histories = dict(zip(names[::order], made, strict=True))
        results = results_of("guo2020-table7", "cpu", histories)
        errors, fitting, *_ = (claim.check(results) for claim in results.experiment.claims)
        assert errors.holds == fitting.holds == holds


def test_a_step_time_is_relative_to_the_same_seed():
    made = {
        "SmallNet": [history(0.5, step=0.1)],
        "CL r=2": [history(0.5, step=0.11)],
        "CL r=2, as a chain": [history(0.5, step=0.25)],
    }
    results = results_of("guo2020-table6", "cpu", made)
    assert results.values("CL r=2", "step_time")[0] == pytest.approx(1.1)
    assert at_most("CL r=2", "step_time", 1.2)(results).holds == "unclear"  # one seed
    assert at_most("CL r=2, as a chain", "step_time", 2.4)(results).holds == "does not hold"
    assert at_most("CL r=4", "step_time", 1.2)(results).holds == "not run"
