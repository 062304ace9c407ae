import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from weightfold.probes.finding import RESULT, read_record, write_finding
from weightfold.probes.tickets import LotteryTicket, load_masks, load_starts, lottery_ticket
from weightfold.probes.tickets.outcomes import Outcome, Outcomes


def outcome(kind, level, seed, iteration, accuracy, remaining=1.0, draw=0):
    return Outcome(
        kind=kind,
        level=level,
        seed=seed,
        draw=draw,
        remaining=remaining,
        iteration=iteration,
        last_iteration=1000,
        value=accuracy,
        final_value=accuracy,
        train_value=1.0,
        seconds=1.0,
        curve=((0, 2.3, 0.1), (iteration, 0.1, accuracy)),
    )


def made(seeds=4):
    """Tickets 300 iterations faster than the full network, and at level 2 less accurate."""
    found = []
    for seed in range(seeds):
        off = 10 * seed
        found.append(outcome("full", 0, seed, 600 + off, 0.95))
        for level, left, accuracy in ((1, 0.5, 0.96), (2, 0.2, 0.90)):
            found.append(outcome("ticket", level, seed, 300 + 2 * off, accuracy, left))
            found.append(outcome("fresh", level, seed, 300 + 100 * (-1) ** seed, 0.94, left))
            found.append(outcome("random", level, seed, 190 + off, 0.90, left))
            found.append(outcome("random", level, seed, 210 + off, 0.92, left, draw=1))
    return LotteryTicket(outcomes=tuple(found), trials=seeds, weights=1000, notes=("A note.",))


def test_differences_are_paired_over_trials():
    results = made().results
    assert results.levels == [1, 2]
    assert results.values("random", 1, "iteration") == {0: 200, 1: 210, 2: 220, 3: 230}
    difference = results.difference("full", 1, "iteration")
    # 2 * off - off - 300 with off = 0, 10, 20, 30; Student's t of 3 degrees is 3.182.
    assert difference.mean == -285
    half = 3.182446 * (500 / 3) ** 0.5 / 2
    assert (difference.low, difference.high) == pytest.approx((-285 - half, -285 + half))
    verdicts = {c.other: c.faster for c in results.comparisons(1)}
    assert verdicts == {"full": "holds", "fresh": "undecided", "random": "does not hold"}


def test_two_trials_prove_nothing():
    verdicts = {c.other: c.faster for c in made(2).results.comparisons(1)}
    assert verdicts["full"] == "undecided"


def test_a_trial_that_lacks_one_of_a_pair_is_left_out():
    kept = [o for o in made().outcomes if not (o.kind == "ticket" and o.seed == 3)]
    assert Outcomes(kept).difference("full", 1, "iteration").n == 3


def test_the_headline_is_of_the_level_nearest_the_papers():
    finding = made()
    assert finding.headline == (
        "At 20.0% of its weights the ticket reaches its early-stopping point after 330 iterations "
        "(full network 615, re-initialised 300, random mask 215) with a test accuracy of 90.00% "
        "(full network 95.00%, re-initialised 94.00%, random mask 91.00%), mean of 4 trials. "
        "It learns faster than the full network (-285 iterations, 95% [-306, -264], 4 seeds). "
        "These trials leave open whether it learns faster than the re-initialised network "
        "(+30 iterations, 95% [-175, +235], 4 seeds). It does not learn faster than the network "
        "under a random mask (+115 iterations, 95% [+94, +136], 4 seeds). "
        "Down to 50.0% of the weights the ticket's test accuracy is on average at most 0.5 points "
        "below the full network's (+1.00 points, 95% [+1.00, +1.00], 4 seeds)."
    )
    assert finding.smallest == 0.5
    poor = tuple(replace(o, value=0.5) if o.kind == "ticket" else o for o in finding.outcomes)
    assert replace(finding, outcomes=poor).smallest is None
    assert "No ticket is as good" in replace(finding, outcomes=poor).headline


def test_what_makes_the_answer_doubtful_comes_first():
    finding = made()
    assert not finding.doubt
    outcomes = [replace(o, value=0.97) if o.kind == "random" else o for o in finding.outcomes]
    doubted = replace(finding, outcomes=tuple(outcomes))
    assert doubted.smallest == 0.5 and doubted.headline.startswith(doubted.doubt)
    assert "At 50.0%" in doubted.doubt and "random mask (+1.00 points" in doubted.doubt
    assert "re-initialised" not in doubted.doubt
    unlearnt = replace(finding, chance=0.92)
    assert unlearnt.doubt and unlearnt.headline.startswith(unlearnt.doubt)


def test_one_trial_has_no_interval():
    assert "-300 iterations, one seed" in made(1).headline
    assert "mean of 1 trial." in made(1).headline


def test_without_tickets_nothing_is_claimed(tmp_path):
    finding = replace(made(), outcomes=tuple(o for o in made().outcomes if o.kind == "full"))
    assert finding.headline == "No ticket was trained to the end, so nothing can be said."
    finding.draw(tmp_path / "figure.png")
    assert len(finding.table().rows) == 1


def test_networks_still_learning_at_the_end_are_counted():
    late = replace(made().outcomes[0], iteration=1000)
    assert Outcomes([late, *made().outcomes[1:]]).unstopped() == {"full": (1, 4)}
    assert made().results.unstopped() == {}


def test_two_that_both_learn_to_the_end_cannot_be_told_apart():
    late = {("full", 0), ("ticket", 1), ("random", 1)}
    outcomes = [
        replace(o, iteration=1000) if (o.kind, o.level) in late else o for o in made().outcomes
    ]
    verdicts = {c.other: (c.open, c.faster) for c in Outcomes(outcomes).comparisons(1)}
    # The re-initialised network stopped before: it was faster, however long the ticket takes.
    assert verdicts == {
        "full": (4, "undecided"),
        "fresh": (0, "does not hold"),
        "random": (4, "undecided"),
    }
    assert Outcomes(outcomes).comparisons(2)[0].faster == "holds"


def test_it_is_written_and_read(tmp_path):
    finding = made()
    page = write_finding(finding, tmp_path, title="Tickets")
    assert (tmp_path / "lottery-ticket.png").read_bytes().startswith(b"\x89PNG")
    assert "A note." in page.read_text(encoding="utf-8")
    record = read_record(tmp_path)
    assert record.pop("probe") == "lottery-ticket"
    assert LotteryTicket.from_record(record) == finding
    assert json.loads((tmp_path / RESULT).read_text())["weights"] == 1000
    header = (tmp_path / "results.csv").read_text().splitlines()[0]
    assert header.startswith("kind,level,seed,draw,remaining,iteration")
    assert finding.table().rows[1][:3] == ["50.0%", "330 ± 26", "300 ± 115"]


def test_masks_are_saved_and_loaded(samples, net_of_seed, tmp_path):
    options = {"rounds": 2, "seeds": [3], "steps": 4, "every": 2, "progress": False}
    finding = lottery_ticket(net_of_seed, samples, folder=tmp_path, **options)
    masks = load_masks(tmp_path / "masks")
    assert masks.keys() == finding.masks.keys() == {(1, 3), (2, 3)}
    for at, tensors in masks.items():
        for name, mask in tensors.items():
            assert torch.equal(mask, finding.masks[at][name])
    start = load_starts(tmp_path / "masks")[3]
    assert torch.equal(start["0.weight"], finding.starts[3]["0.weight"])
    with pytest.raises(ValueError, match="this finding has no masks"):
        made().save_masks(tmp_path)
    with pytest.raises(FileNotFoundError, match="give the folder that"):
        load_masks(tmp_path)
    finding.save_masks(tmp_path / "again")
    assert load_masks(tmp_path / "again").keys() == masks.keys()
    start = next((tmp_path / "again").glob("start-*"))
    start.write_bytes(start.read_bytes()[:-1])
    assert load_masks(tmp_path / "again").keys() == masks.keys()
    with pytest.raises(ValueError, match=start.name):
        load_starts(tmp_path / "again")
    save_file({"w": torch.ones(2) > 0}, tmp_path / "mask-level-02-seed-7.safetensors")
    assert load_masks(tmp_path).keys() == {(2, 7)}, "of an earlier version, without an index"
    save_file({"w": torch.ones(2)}, tmp_path / "mask-level-01-seed-0.safetensors")
    with pytest.raises(ValueError, match=r"tensor 'w' is torch\.float32; a mask is torch\.bool"):
        load_masks(tmp_path)
