import pytest

from weightfold.train.domains import (
    DECATHLON_BASELINE_ERRORS,
    decathlon_points,
    decathlon_score,
    evaluate_domains,
)


def test_the_baseline_of_the_decathlon_scores_2500():
    assert len(DECATHLON_BASELINE_ERRORS) == 10
    score = decathlon_score(DECATHLON_BASELINE_ERRORS, DECATHLON_BASELINE_ERRORS)
    assert score == pytest.approx(2500)
    perfect = dict.fromkeys(DECATHLON_BASELINE_ERRORS, 0.0)
    assert decathlon_score(perfect, DECATHLON_BASELINE_ERRORS) == pytest.approx(10_000)


def test_points_by_hand():
    points = decathlon_points({"a": 0.1, "b": 0.5, "c": 0.9}, {"a": 0.2, "b": 0.25, "c": 0.3})
    # a: 1000 ((0.4 - 0.1) / 0.4)^2; b is at twice the baseline; c beyond it
    assert points == pytest.approx({"a": 562.5, "b": 0.0, "c": 0.0})


@pytest.mark.parametrize(
    ("errors", "baseline", "message"),
    [
        ({"a": 0.1}, {"b": 0.1}, r"other domains \(a, b\)"),
        ({"a": 10.0}, {"a": 0.1}, "a: error 10.0"),
        ({"a": 0.1}, {"a": 0.0}, "baseline 0.0"),
    ],
)
def test_errors_that_are_no_shares_are_refused(errors, baseline, message):
    with pytest.raises(ValueError, match=message):
        decathlon_score(errors, baseline)


def test_some_domains_can_be_evaluated_and_the_mode_stays(make_net, make_dataset, datasets):
    net = make_net().train()
    found = evaluate_domains(net, {"cars": datasets["cars"]})
    assert list(found) == ["cars"] and 0 <= found["cars"] <= 1
    assert net.training
    with pytest.raises(KeyError, match="dogs"):
        evaluate_domains(net, {"dogs": datasets["cars"]})
    with pytest.raises(
        ValueError, match=r"'cars'.* shape \(2, 3\), but task 'classify' on 'c' takes \(2, 5\)"
    ):
        evaluate_domains(net, {"cars": make_dataset("c", 40, 5)})
