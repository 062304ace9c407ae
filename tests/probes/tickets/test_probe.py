from dataclasses import replace

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.data import Dataset, Examples, hold_out
from weightfold.probes.models import fresh, net_of
from weightfold.probes.tickets.experiment import sparse
from weightfold.probes.tickets.probe import RECIPE, lottery_ticket
from weightfold.probes.tickets.prune import (
    full_masks,
    magnitude_masks,
    prunable,
    random_masks,
    share,
    surviving,
)
from weightfold.tasks import as_task
from weightfold.train.loop import NonFiniteLoss
from weightfold.train.strategies.fabric import Fabric, Single
from weightfold.train.together import SIDE_BY_SIDE, Run, fit_together

FAST = replace(RECIPE, batch_size=20, lr=0.01)
SMALL = {"recipe": FAST, "steps": 12, "every": 4, "rounds": 2, "seeds": range(2), "progress": False}


def weights_of(net):
    return {name: p.detach() for name, p in prunable(net).items()}


def train(net, samples, seed, steps=12):
    options = replace(SIDE_BY_SIDE, measure=("validation", "test"), every=4, steps=steps)
    run = fit_together({"run": Run(net, samples, seed)}, FAST, device="cpu", options=options)
    return run["run"]


def outcome(finding, kind, level, seed):
    (found,) = (o for o in finding.outcomes if (o.kind, o.level, o.seed) == (kind, level, seed))
    return found


def test_the_protocol_step_by_step(samples, net_of_seed):
    """What the probe did, done by hand for one trial: two rounds, with both controls."""
    finding = lottery_ticket(net_of_seed, samples, fractions={"2.weight": 0.1}, **SMALL)
    held = hold_out(samples, 20, seed=0)
    start, full = net_of(net_of_seed, 1), net_of(net_of_seed, 1)
    train(full, held, 1)
    masks, trained = full_masks(weights_of(full)), weights_of(full)
    for level, counts in ((1, (64, 27)), (2, (51, 24))):
        masks = magnitude_masks(trained, masks, 0.2, fractions={"2.weight": 0.1})
        assert tuple(int(m.sum()) for m in masks.values()) == counts
        for name, mask in masks.items():
            assert torch.equal(finding.masks[level, 1][name], mask)
        ticket = wf.mask(start, masks, live=True)
        run = train(ticket, held, 1)
        found = outcome(finding, "ticket", level, 1)
        assert found.remaining == share(masks) == sum(counts) / 110
        best = min(run.rows, key=lambda row: row["validation_loss"])
        assert found.iteration == best.step
        assert found.value == best["test_accuracy"]
        assert found.final_value == run.last()
        assert found.train_value == run.last(part="train")
        assert [c[0] for c in found.curve] == [0, 4, 8, 12]
        losses = torch.tensor([c[1] for c in found.curve])
        hand = torch.tensor([row["validation_loss"] for row in run.rows])
        # The probe may have trained several networks as one batch.
        torch.testing.assert_close(losses, hand, rtol=1e-4, atol=1e-5)
        trained = weights_of(ticket.deploy())
        assert not any(trained[n][~m].any() for n, m in masks.items())
    for name, tensor in start.state_dict().items():
        assert torch.equal(finding.starts[1][name], tensor)


def test_each_level_has_all_kinds(samples, net_of_seed):
    finding = lottery_ticket(net_of_seed, samples, random_trials=5, **SMALL)
    kinds = [(o.level, o.kind) for o in finding.outcomes]
    assert kinds.count((0, "full")) == 2 and len(kinds) == 2 + 2 * (2 + 2 + 5)
    for level in (1, 2):
        assert [kinds.count((level, kind)) for kind in ("ticket", "fresh", "random")] == [2, 2, 5]
        dealt = [
            (o.seed, o.draw) for o in finding.outcomes if (o.level, o.kind) == (level, "random")
        ]
        assert sorted(dealt) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]
        left = {o.remaining for o in finding.outcomes if o.level == level}
        assert len(left) == 1


def test_the_controls_start_as_they_say(samples, net_of_seed, monkeypatch):
    from weightfold.probes.tickets import experiment

    made = []

    def noted(net, masks):
        made.append((net, masks))
        return sparse(net, masks)

    monkeypatch.setattr(experiment, "sparse", noted)
    finding = lottery_ticket(net_of_seed, samples, **SMALL)
    first = net_of(net_of_seed, 0).state_dict()["0.weight"]
    drawn = []
    for level, nets in ((1, made[:6]), (2, made[6:])):
        ticket, anew, *_, random, _ = [(net.state_dict()["0.weight"], masks) for net, masks in nets]
        assert torch.equal(ticket[0], first) and torch.equal(random[0], first)
        drawn.append(anew[0])
        for name, mask in finding.masks[level, 0].items():
            assert torch.equal(ticket[1][name], mask) and torch.equal(anew[1][name], mask)
            assert not torch.equal(random[1][name], mask)
            assert random[1][name].sum() == mask.sum()
    assert len(made) == 12
    assert len({tuple(weight.flatten().tolist()) for weight in (first, *drawn)}) == 3


def test_dead_weights_have_no_optimizer_state(samples, net_of_seed):
    net = net_of(net_of_seed, 0)
    masks = random_masks(full_masks(weights_of(net)), 0)
    masks = magnitude_masks(weights_of(net), masks, 0.7)
    fabric = Fabric(accelerator="cpu", devices=1)
    single = Single(fabric, sparse(net, masks), as_task(samples), FAST, 0)
    single.step((samples.train.inputs[:20], samples.train.targets[:20]), 0.01)
    biases = 10 + 3
    for moment in ("exp_avg", "exp_avg_sq"):
        sizes = [state[moment].numel() for state in single.optimizer.state.values()]
        assert sum(sizes) == surviving(masks) + biases == 33 + biases


def test_rewinding_goes_back_to_the_weights_after_k_steps(samples, net_of_seed):
    finding = lottery_ticket(net_of_seed, samples, rewind=4, **SMALL)
    early = net_of(net_of_seed, 1)
    train(early, hold_out(samples, 20, seed=0), 1, steps=4)
    for name, tensor in early.state_dict().items():
        torch.testing.assert_close(finding.starts[1][name], tensor, rtol=1e-5, atol=1e-6)
    assert {o.last_iteration for o in finding.outcomes} == {12}
    begins = {o.kind: o.curve[0][0] for o in finding.outcomes}
    assert begins == {"full": 0, "ticket": 4, "fresh": 0, "random": 4}
    assert any("set back to step 4" in note for note in finding.notes)


def test_one_shot_prunes_the_full_network_each_time(samples, net_of_seed):
    finding = lottery_ticket(net_of_seed, samples, method="one-shot", scope="global", **SMALL)
    full = net_of(net_of_seed, 0)
    train(full, hold_out(samples, 20, seed=0), 0)
    weights = weights_of(full)
    for level in (1, 2):
        wanted = magnitude_masks(weights, full_masks(weights), 1 - 0.8**level, scope="global")
        for name, mask in wanted.items():
            assert torch.equal(finding.masks[level, 0][name], mask)


class Stop(Exception):
    pass


def test_a_stopped_probe_goes_on(samples, net_of_seed, tmp_path):
    whole = lottery_ticket(net_of_seed, samples, **SMALL)

    def stop(progress):
        if progress.completed > 9:
            raise Stop

    options = SMALL | {"folder": tmp_path}
    with pytest.raises(Stop):
        lottery_ticket(net_of_seed, samples, **options | {"progress": stop})
    shown = []
    resumed = lottery_ticket(net_of_seed, samples, **options | {"progress": shown.append})
    assert [replace(o, seconds=0) for o in resumed.outcomes] == [
        replace(o, seconds=0) for o in whole.outcomes
    ]
    assert shown[-1].completed == shown[-1].total == 14
    with pytest.raises(FileExistsError, match="holds another run"):
        lottery_ticket(net_of_seed, samples, **options | {"every": 3})


def test_runs_that_are_not_finite_are_named_and_left_out(samples, net_of_seed):
    def of_seed(seed):
        net = net_of_seed(seed)
        if seed == 1:
            with torch.no_grad():
                net[2].weight.mul_(1e38)
        return net

    finding = lottery_ticket(of_seed, samples, **SMALL)
    assert {o.seed for o in finding.outcomes} == {0}
    (note,) = (n for n in finding.notes if n.startswith("Left out"))
    assert "the full network of trial 1 at 100.0% of weights: the loss is" in note
    with pytest.raises(NonFiniteLoss, match="no full network was trained to the end"):
        lottery_ticket(of_seed, samples, **SMALL | {"seeds": [1]})


def test_a_module_is_the_start_of_all_trials_and_left_as_it_is():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2)
    )
    before = {name: t.clone() for name, t in net.state_dict().items()}
    x, y = torch.randint(0, 255, (60, 1, 4, 4), dtype=torch.uint8), torch.arange(60) % 2
    data = Dataset(
        "data",
        Examples(x[:40], y[:40]),
        Examples(x[40:], y[40:]),
        2,
        validation=Examples(x[40:], y[40:]),
    )
    finding = lottery_ticket(net, data, **SMALL)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name])
    assert set(finding.masks[2, 0]) == {"0.weight", "4.weight"}
    assert torch.equal(finding.starts[0]["0.weight"], finding.starts[1]["0.weight"])
    assert finding.weights == 27 + 24
    assert any("differ in data order alone" in note for note in finding.notes)


class Idle(nn.Module):
    """With a layer that nothing reads."""

    def __init__(self):
        super().__init__()
        self.body, self.spare = nn.Linear(8, 3), nn.Linear(8, 50)

    def forward(self, x):
        return self.body(x)


def test_bad_input_is_refused_before_training(samples, net_of_seed, tmp_path):
    def refused(error, match, net=net_of_seed, data=samples, **options):
        with pytest.raises(error, match=match):
            lottery_ticket(net, data, **SMALL | {"folder": tmp_path / "run"} | options)

    refused(ValueError, "rounds=0: give at least 1", rounds=0)
    refused(ValueError, r"fraction=1\.0: give the share", fraction=1.0)
    refused(ValueError, "rewind=5: give 0 or a multiple of every=4", rewind=5)
    refused(ValueError, "rewind=12: .* 12 steps", rewind=12)
    refused(ValueError, r"seeds=\(\): give at least one", seeds=())
    refused(ValueError, r"seeds=\(1, 1\): give at least one, each once", seeds=(1, 1))
    refused(ValueError, "random_trials=1: give at least one for each of 2", random_trials=1)
    refused(ValueError, "matches no tensor that is pruned", fractions={"1.weight": 0.1})
    refused(ValueError, r"validation=30\.5: give a share below 1", validation=30.5)
    refused(ValueError, "validation=200 .* from 1 to 199", validation=200)
    held = hold_out(samples, 20, seed=0)
    refused(ValueError, "has a validation set of its own", data=held, validation=20)
    charted = wf.subspace(net_of(net_of_seed, 0), 5)
    refused(TypeError, r"give the plain network, e\.g\. net\.deploy", net=charted)
    no_reset = nn.Sequential(nn.Linear(8, 3))
    no_reset.register_parameter("scale", nn.Parameter(torch.ones(1)))
    refused(ValueError, "reset_parameters", net=no_reset)
    with pytest.raises(ValueError, match="reset_parameters"):
        fresh(no_reset, 0)
    refused(ValueError, r"shape \(8, 2\).*takes \(8, 3\)", net=nn.Linear(8, 2))
    refused(ValueError, r"1 parameters get no gradient: spare\.weight", net=Idle())
    assert not (tmp_path / "run").exists()
