import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.methods.subspace.verb import subspace
from weightfold.probes.layers.cells import evaluate
from weightfold.probes.layers.measurements import DRAWN, Cell
from weightfold.probes.layers.reset import layer_reset
from weightfold.probes.layers.splice import splice
from weightfold.probes.models import fresh
from weightfold.train import NonFiniteLoss, Recipe
from weightfold.train.seeding import mixed_seed

RECIPE = Recipe(epochs=3, batch_size=32, lr=0.1, crop_padding=0, flip=False)
QUIET = {"recipe": RECIPE, "seeds": (0, 1), "draws": 2, "progress": False}
POLICIES = ("keep", "source", "recalibrate")


class Heard(list):
    """What a probe tells; interrupts it when a text comes for the n-th time."""

    def __init__(self, stop=None, times=1):
        super().__init__()
        self.stop, self.times = stop, times

    def __call__(self, now):
        assert 0 <= now.completed <= now.total
        self.append(now)
        if self.stop and self.stop in now.text:
            self.times -= 1
            if not self.times:
                raise KeyboardInterrupt

    def count(self, text):
        return sum(text in now.text for now in self)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reset")


@pytest.fixture(scope="module")
def found(make_net, samples, folder):
    """The policies' findings of the same two networks."""
    return {bn: layer_reset(make_net, samples, bn=bn, folder=folder, **QUIET) for bn in POLICIES}


@pytest.fixture(scope="module")
def points():
    """Points of four classes in eight dimensions."""
    y = torch.arange(40) % 4
    x = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) + 2 * torch.eye(4, 8)[y]
    return Dataset("data", Examples(x[:20], y[:20]), Examples(x[20:], y[20:]), 4)


def linear_past(seed=0):
    """Weights of a linear network at three epochs."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return {epoch: nn.Linear(8, 4).state_dict() for epoch in (0, 1, 4)}


def test_policies_share_the_networks_and_differ_in_their_answers(found, folder):
    names = {path.name for path in folder.iterdir()}
    assert names == {"runs", *(f"tests-{bn}" for bn in POLICIES)}
    assert found["keep"].distances == found["source"].distances == found["recalibrate"].distances
    assert found["keep"].trained == found["source"].trained
    assert len({finding.increase("conv1").mean for finding in found.values()}) == 3
    assert found["keep"].errors("fc", 0) == found["source"].errors("fc", 0)


def test_every_unit_has_a_cell_for_each_epoch_and_draw(found):
    finding = found["keep"]
    assert finding.epochs == (0, 1, 2, 3) and finding.seeds == (0, 1)
    wanted = {("", 3, seed, None) for seed in (0, 1)}
    for unit in ("conv1", "conv2", "fc"):
        wanted |= {(unit, epoch, seed, None) for epoch in (0, 1, 2) for seed in (0, 1)}
        wanted |= {(unit, DRAWN, seed, draw) for draw in (0, 1) for seed in (0, 1)}
    cells = [(c.unit, c.source, c.seed, c.draw) for c in finding.cells]
    assert len(cells) == len(wanted) and set(cells) == wanted
    assert finding.errors("fc", 3) == finding.trained
    assert len(finding.rows()) == len(cells) and {row["bn"] for row in finding.rows()} == {"keep"}


@pytest.mark.parametrize("bn", POLICIES)
def test_a_cell_is_the_error_of_the_spliced_network(bn, found, make_net, samples, folder):
    state = torch.load(folder / "runs" / "seed1" / "last.pt", weights_only=True)
    past = state["callbacks"]["KeepWeights 0"]["seed1"]
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = make_net(1)
    assert all(torch.equal(tensor, past[0][name]) for name, tensor in net.state_dict().items())
    net.load_state_dict(past[3])
    cells = {(c.unit, c.source, c.draw): c for c in found[bn].cells if c.seed == 1}
    drawn = [fresh(make_net, mixed_seed("layer reset", 1, draw)) for draw in (0, 1)]
    sources = [(epoch, None, past[epoch]) for epoch in (0, 1, 2)]
    sources += [(DRAWN, draw, net_drawn) for draw, net_drawn in enumerate(drawn)]

    def check(cell, layers, other):
        spliced = splice(net, other, layers, bn=bn, data=samples)
        assert (cell.error, cell.loss) == evaluate(spliced, samples)

    check(cells["", 3, None], None, past[3])
    for unit in found[bn].units:
        for source, draw, other in sources:
            check(cells[unit.name, source, draw], unit.modules, other)


def test_distances_are_of_all_weights_of_the_unit(found, folder):
    state = torch.load(folder / "runs" / "seed0" / "last.pt", weights_only=True)
    past = state["callbacks"]["KeepWeights 0"]["seed0"]
    names = ("conv1.weight", "bn1.weight", "bn1.bias")
    moved = torch.cat([(past[3][n].double() - past[0][n].double()).flatten() for n in names])
    (distance,) = (d for d in found["keep"].distances if (d.unit, d.seed) == ("conv1", 0))
    # The two sums run in different orders.
    assert distance.l2 == pytest.approx(moved.norm().item() / 33**0.5, rel=1e-14)
    assert distance.linf == moved.abs().max().item()


@pytest.mark.parametrize(("text", "times"), [("training", 4), ("seed 1, conv2", 3)])
def test_a_stopped_call_goes_on_to_the_same_answer(found, make_net, samples, tmp_path, text, times):
    options = {**QUIET, "bn": "recalibrate", "folder": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        layer_reset(make_net, samples, **{**options, "progress": Heard(text, times)})
    heard = Heard()
    again = layer_reset(make_net, samples, **{**options, "progress": heard})
    assert again.cells == found["recalibrate"].cells
    assert heard[-1].completed == heard[-1].total
    if text != "training":
        assert not any(heard.count(t) for t in ("training", "seed 0, conv", "seed 1, conv1"))
        assert heard.count("seed 1, conv2") == 5


def test_the_folder_of_another_call_is_refused(found, make_net, samples, folder):
    with pytest.raises(FileExistsError, match="weights kept at epochs"):
        layer_reset(make_net, samples, bn="keep", folder=folder, reset_to=[2], **QUIET)
    with pytest.raises(FileExistsError, match="drawn anew"):
        layer_reset(make_net, samples, bn="keep", folder=folder, **{**QUIET, "draws": 3})
    with pytest.raises(FileExistsError, match="holds another run"):
        layer_reset(make_net, samples.limited(train=64), bn="keep", folder=folder, **QUIET)


def test_the_model_given_is_left_as_it_is_and_starts_all_networks(make_net, samples):
    net = make_net(5)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    finding = layer_reset(net, samples, bn="keep", reset_to=(), **QUIET)
    assert all(torch.equal(t, before[n]) for n, t in net.state_dict().items()) and net.training
    assert finding.epochs == (0, 3)
    assert any("start from the same weights" in note for note in finding.notes)
    assert any("reset_parameters()" in note for note in finding.notes)


def test_checkpoints_are_tested_without_training(points, tmp_path):
    past = linear_past()
    save_file(past[1], tmp_path / "one.safetensors")
    finding = layer_reset(
        nn.Linear(8, 4),
        points,
        bn="keep",
        checkpoints=past | {1: tmp_path / "one.safetensors"},
        draws=1,
        progress=False,
    )
    assert finding.epochs == (0, 1, 4) and finding.seeds == (0,) and finding.recipe is None
    net = nn.Linear(8, 4)
    for epoch, state in past.items():
        net.load_state_dict(state)
        assert finding.errors("itself", epoch) == [evaluate(net, points)[0]]
    assert finding.distance("itself", "linf").mean == pytest.approx(
        max((past[4][n].double() - past[0][n].double()).abs().max().item() for n in past[0])
    )


def test_checkpoints_of_several_networks(points):
    pasts = [linear_past(0), linear_past(1)]
    options = {"bn": "keep", "draws": 1, "progress": False}
    both = layer_reset(nn.Linear(8, 4), points, checkpoints=pasts, **options)
    one = layer_reset(nn.Linear(8, 4), points, checkpoints=pasts[0], **options)
    assert both.seeds == (0, 1)
    assert both.cells[: len(one.cells)] == one.cells


def test_layers_that_cannot_be_drawn_anew_are_left_out_by_name(points):
    class Scale(nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = nn.Parameter(torch.ones(8))

        def forward(self, x):
            return self.factor * x

    net = nn.Sequential(Scale(), nn.Linear(8, 4))
    past = {epoch: net.state_dict() for epoch in (0, 1)}
    finding = layer_reset(net, points, bn="keep", checkpoints=past, progress=False)
    assert finding.errors("0", DRAWN) is None and len(finding.errors("1", DRAWN)) == 1
    assert any("want of a reset_parameters(): 0." in note for note in finding.notes)
    assert finding.table().rows[0][4] == ""
    by_function = layer_reset(
        lambda seed: nn.Sequential(Scale(), nn.Linear(8, 4)),
        points,
        bn="keep",
        checkpoints=past,
        progress=False,
    )
    assert by_function.errors("0", DRAWN) == pytest.approx(by_function.trained)


def test_a_network_that_fails_is_left_out_by_name(points):
    def broken(seed):
        net = nn.Linear(8, 4)
        if seed == 1:
            nn.init.constant_(net.weight, torch.inf)
        return net

    finding = layer_reset(broken, points, bn="keep", **QUIET)
    assert finding.seeds == (0,) and {cell.seed for cell in finding.cells} == {0}
    assert any("Left out: seed1, " in note and "finite" in note for note in finding.notes)
    with pytest.raises(NonFiniteLoss, match="no network could be trained"):
        layer_reset(broken, points, bn="keep", **{**QUIET, "seeds": [1]})


def test_logits_that_are_not_finite_are_wrong_and_have_no_loss(points):
    past = linear_past()
    past[0] = {name: torch.full_like(tensor, torch.nan) for name, tensor in past[0].items()}
    finding = layer_reset(nn.Linear(8, 4), points, bn="keep", checkpoints=past, progress=False)
    assert Cell("itself", 0, 0, None, 1.0, None) in finding.cells


def test_bad_arguments_are_refused_before_anything_is_trained(make_net, samples):
    heard = Heard()

    def call(**options):
        options = {"bn": "keep", **QUIET, "progress": heard} | options
        return layer_reset(options.pop("net", make_net), samples, **options)

    net = make_net()
    past = {0: net, 1: net}
    for options, error, text in (
        ({"bn": "stale"}, ValueError, "bn='stale'"),
        ({"draws": 0}, ValueError, "draws=0"),
        ({"seeds": ()}, ValueError, r"seeds=\(\)"),
        ({"seeds": (1, 1)}, ValueError, "each once"),
        ({"reset_to": [1, 4]}, ValueError, "epoch 4.*epochs 0 to 3"),
        ({"reset_to": [1], "checkpoints": past}, ValueError, "reset_to is for training"),
        ({"checkpoints": {1: net}}, ValueError, r"epochs \[1\].*as epoch 0"),
        ({"checkpoints": []}, ValueError, "checkpoints is empty"),
        ({"checkpoints": [past, {0: net, 2: net}]}, ValueError, r"network 1 have.*\[0, 2\]"),
        ({"checkpoints": {"0": net, "1": net}}, TypeError, "must map epochs"),
        ({"checkpoints": {0: net, 1: nn.Linear(2, 2)}}, ValueError, r"checkpoints\[1\]"),
        ({"net": subspace(net, 3)}, TypeError, "net holds a Charted net"),
        ({"net": nn.Sequential(net, nn.Linear(4, 2))}, ValueError, r"takes \(8, 4\)"),
    ):
        with pytest.raises(error, match=text):
            call(**options)
    assert not heard
