"""Verdicts: what holds, what does not, what is undecided, and what did not run."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from weightfold.lab.claims import above, across, all_of, at_most, below, told_apart
from weightfold.lab.experiment import PRESETS, Claim, Experiment, Line, Preset, Quantity
from weightfold.lab.kept import Kept
from weightfold.lab.page import corrected, judge_claims
from weightfold.lab.printed import Printed
from weightfold.lab.results import Outcome, Results
from weightfold.lab.training import Training
from weightfold.lab.verdicts import Comparison, Verdict
from weightfold.train import Recipe

RUN = Training("digitnet", "compact", "digits", Recipe())
SCORE = Quantity("score", "score (%)", of=lambda record: record.score)
DOMAINS = tuple(
    Quantity(f"accuracy/{name}", f"{name} (%)", of=lambda record, name=name: record.score[name])
    for name in ("one", "two")
)


def results(scores, *, measures=(SCORE,), published=None, claims=()):
    """Results with these scores of each line, a value a seed."""
    found = Experiment(
        name="made-up",
        paper="",
        title="",
        measures=measures,
        lines=tuple(
            Line(label, {"cpu": RUN}, (published or {}).get(label, {})) for label in scores
        ),
        presets=dict.fromkeys(PRESETS, Preset(3)),
        claims=claims,
    )
    outcomes = {
        label: tuple(
            Outcome(run, SimpleNamespace(score=value))
            for run, value in zip(RUN.over(range(len(values))), values, strict=True)
        )
        for label, values in scores.items()
    }
    return Results(found, "cpu", outcomes, found.columns[0])


BASE = [70.0, 71.0, 72.0]
A_ABOVE_B = above("a", "b", "score")


@pytest.mark.parametrize(
    ("ours", "judged"),
    [
        ([73.0, 74.1, 75.2], "holds"),
        ([70.0, 72.0, 73.0], "undecided"),
        ([69.0, 70.1, 71.0], "does not hold"),
        ([68.0, 72.0, 70.0], "undecided"),
        (BASE, "does not hold"),
        ([75.0], "undecided"),
        ([], None),
    ],
)
def test_a_comparison_is_judged_by_its_interval(ours, judged):
    found = results({"a": ours, "b": BASE})
    verdict = A_ABOVE_B(found)
    assert verdict.judged == judged
    assert verdict.text == (judged or "not run")
    assert below("b", "a", "score")(found) == verdict


def test_numbers_are_the_paired_difference_its_p_and_the_papers():
    from scipy.stats import ttest_rel

    ours = [73.0, 74.1, 75.2]
    test = ttest_rel(ours, BASE)
    interval = test.confidence_interval()
    printed = {"a": {"score": Printed(80.27)}, "b": {"score": Printed(78.63)}}
    (one,) = A_ABOVE_B(results({"a": ours, "b": BASE}, published=printed)).comparisons
    assert f"+3.10, 95% [{interval.low:+.2f}, {interval.high:+.2f}], 3 seeds" in one.text
    assert "paper +1.64" in one.text
    assert one.p == pytest.approx(test.pvalue)
    (opposite,) = above("b", "a", "score")(results({"a": ours, "b": BASE})).comparisons
    assert opposite.p == 1  # a claim on the other side has no luck to fear


def test_only_seeds_that_both_lines_have_are_compared():
    assert ", one seed" in A_ABOVE_B(results({"a": [80.0], "b": BASE})).numbers


@pytest.mark.parametrize(
    ("scores", "text"),
    [
        ({"a": [73, 74.1, 75.2], "b": BASE, "c": [60, 61, 63]}, "holds in all 2 comparisons"),
        (
            {"a": [73, 74.1, 75.2], "b": BASE, "c": []},
            "undecided: of 2 comparisons 1 holds, 1 not run",
        ),
        (
            {"a": [73, 74.1, 75.2], "b": BASE, "c": [90, 91, 93]},
            "does not hold: of 2 comparisons 1 holds, 1 does not",
        ),
        (
            {"a": [70, 72, 73], "b": BASE, "c": [60, 61, 63]},
            "undecided: of 2 comparisons 1 holds, 1 undecided",
        ),
        ({"a": [60, 61, 62], "b": BASE, "c": BASE}, "does not hold in any of 2 comparisons"),
        ({"a": [], "b": BASE, "c": []}, "not run"),
    ],
)
def test_what_did_not_run_is_counted_and_never_holds(scores, text):
    both = all_of(A_ABOVE_B, above("a", "c", "score"))
    assert both(results(scores)).text == text
    assert both(results(scores)).p is None or "not run" not in text


def test_at_most():
    found = results({"a": [1.0, 1.1, 1.05], "b": [2.5], "c": []})
    assert at_most("a", "score", 1.4)(found).judged == "holds"
    assert at_most("b", "score", 2.4)(found).judged == "undecided"  # one seed
    assert at_most("a", "score", 0.8)(found).judged == "does not hold"
    assert at_most("c", "score", 1.2)(found).text == "not run"


def test_lines_are_told_apart_on_either_side():
    found = results({"a": [73.0, 74.1, 75.2], "b": BASE, "c": [70.0, 72.0, 73.0]})
    for a, b, said in (("a", "b", "a is more accurate than b"), ("b", "a", "less accurate than a")):
        verdict = told_apart(a, b, "score")(found)
        assert verdict.judged == "holds" and said in verdict.numbers
    verdict = told_apart("b", "c", "score")(found)
    assert verdict.judged == "undecided" and "cannot be told apart" in verdict.numbers


def test_cells_of_a_pair_are_counted():
    """Of two domains one is ahead with its whole interval, one behind."""
    ours = [{"one": 60.0 + s, "two": 50.0 + s} for s in range(3)]
    others = [{"one": 50.0 + s, "two": 51.0 + s} for s in range(3)]
    printed = {
        "a": {f"accuracy/{n}": Printed(v) for n, v in (("x", 70.0), ("y", 60.0))},
        "b": {f"accuracy/{n}": Printed(v) for n, v in (("x", 69.0), ("y", 61.0))},
    }
    names = tuple(Quantity(f"accuracy/{n}", n, of=lambda r: None) for n in ("x", "y"))
    found = results({"a": ours, "b": others, "c": []}, measures=(*DOMAINS, *names),
                    published=printed)  # fmt: skip
    verdict = across((("a", "b"), ("a", "c")), "accuracy")(found)
    assert verdict.text == "undecided: of 2 comparisons 1 holds, 1 not run"
    counts = verdict.comparisons[0].counts
    assert (counts["held"], counts["clear"], counts["against"], counts["cells"]) == (1, 1, 1, 2)
    assert (counts["paper_held"], counts["paper_cells"]) == (1, 2)
    assert counts["paper_difference"] == 0
    equal = across((("a", "a"),), "accuracy", or_equal=True)(found).comparisons[0]
    assert equal.counts["held"] == 2 and equal.judged == "undecided"


def test_claims_judged_at_once_are_corrected():
    wide = Claim("a above c", above("a", "c", "score"))
    close = Claim("a above b", A_ABOVE_B)
    open_ = Claim("a above d", above("a", "d", "score"))
    scores = {"a": [73.0, 74.1, 75.2], "b": BASE, "c": [72.0, 74.0, 74.9], "d": []}
    verdicts = judge_claims(results(scores, claims=(close, wide, open_)))
    found = corrected(verdicts)
    assert set(found) == {"a above b", "a above c"}
    assert found["a above b"] == pytest.approx(2 * verdicts["a above b"].p)
    assert found["a above c"] == pytest.approx(verdicts["a above c"].p)


def test_what_was_kept_of_lines_whose_records_are_gone_stays_beside_what_ran_since():
    """One claim over three lines: of the first records are gone, the second ran since."""

    def check(found):
        return Verdict(
            tuple(
                Comparison("undecided", f"{label}: now")
                if found.records(label)
                else Comparison(None, f"{label}: not run")
                for label in found.outcomes
            )
        )

    def judged(*before, since=True):
        made = results({"a": [], "b": [1.0], "c": []}, claims=(Claim("all of them", check),))
        outcomes = dict(made.outcomes) | {"a": (Outcome(RUN, None, counted=True),)}
        outcomes |= {} if since else {"b": ()}
        kept = Kept(Path("x"), {}, {}, verdicts={"all of them": Verdict(before)})
        (found,) = judge_claims(replace(made, outcomes=outcomes, kept=kept)).values()
        return [(one.judged, one.text) for one in found.comparisons]

    told = Comparison("holds", "a: as it was told then")
    rest = (Comparison(None, "b: not run"), Comparison(None, "c: not run"))
    both = [("holds", told.text), ("undecided", "b: now"), (None, "c: not run")]
    assert judged(told) == judged(told, *rest) == both
    assert judged(told, Comparison("undecided", "b: now"), rest[1]) == both
    unrun = [("holds", told.text), (None, "b: not run"), (None, "c: not run")]
    assert judged(told, since=False) == judged(told, *rest, since=False) == unrun
