import copy

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

import weightfold as wf
from weightfold.probes.layers.batch_norm import recalibrate
from weightfold.probes.layers.splice import splice

UNITS = {"conv1": ["conv1", "bn1"], "conv2": ["conv2", "bn2"], "fc": ["fc"]}
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


def taken(net: nn.Module, trained: nn.Module, other: nn.Module) -> set[str]:
    """Names of the tensors that are those of `other`, bit for bit; the rest are of `trained`."""
    found = set()
    for name, tensor in net.state_dict().items():
        ours, theirs = trained.state_dict()[name], other.state_dict()[name]
        assert not torch.equal(ours, theirs)
        if torch.equal(tensor, theirs):
            found.add(name)
        else:
            assert torch.equal(tensor, ours), name
    return found


@pytest.mark.parametrize(
    ("layers", "chosen"),
    [
        ("conv1", {"conv1.weight"}),
        (["conv*", "fc"], {"conv1.weight", "conv2.weight", "conv2.bias", "fc.weight", "fc.bias"}),
        (nn.Linear, {"fc.weight", "fc.bias"}),
        ("bn2", {"bn2.weight", "bn2.bias"}),
        (lambda name, module: name == "fc", {"fc.weight", "fc.bias"}),
    ],
)
def test_keep_takes_exactly_the_layers_without_running_statistics(trained, other, layers, chosen):
    assert taken(splice(trained, other, layers, bn="keep"), trained, other) == chosen


def test_all_layers_with_their_statistics_are_the_other_network(trained, other):
    net = splice(trained, other, None, bn="source")
    assert taken(net, trained, other) == set(other.state_dict())


@pytest.mark.parametrize(
    ("layer", "weights"), [("conv1", {"conv1.weight"}), ("bn1", {"bn1.weight", "bn1.bias"})]
)
def test_source_takes_the_statistics_with_layer_or_norm(trained, other, samples, layer, weights):
    net = splice(trained, other, layer, bn="source", data=samples)
    assert taken(net, trained, other) == weights | {f"bn1.{name}" for name in STATISTICS}


def test_recalibrate_estimates_all_statistics_anew(trained, other, samples):
    net = splice(trained, other, "conv2", bn="recalibrate", data=samples)
    expected = splice(trained, other, "conv2", bn="keep")
    recalibrate(expected, samples)
    assert all(torch.equal(t, expected.state_dict()[n]) for n, t in net.state_dict().items())
    assert not torch.equal(net.bn1.running_mean, trained.bn1.running_mean)


@given(chosen=st.sets(st.sampled_from(sorted(UNITS))))
def test_splices_of_complements_are_one_network(trained, other, samples, chosen):
    rest = UNITS.keys() - chosen
    assume(chosen and rest)
    some, others = ([path for unit in part for path in UNITS[unit]] for part in (chosen, rest))
    one = splice(trained, other, some, bn="source", data=samples)
    two = splice(other, trained, others, bn="source", data=samples)
    for name, tensor in one.state_dict().items():
        assert torch.equal(tensor, two.state_dict()[name]), name


def test_the_kind_of_checkpoint_makes_no_difference(trained, other, tmp_path):
    save_file(other.state_dict(), tmp_path / "other.safetensors")
    for kind in (
        other.state_dict(),
        tmp_path / "other.safetensors",
        str(tmp_path / "other.safetensors"),
    ):
        net = wf.splice(trained, kind, "conv1", bn="keep")
        assert taken(net, trained, other) == {"conv1.weight"}


def test_the_result_is_a_network_of_its_own(trained, other):
    start = copy.deepcopy(trained)
    start.bn1.eval()
    start.fc.bias.requires_grad_(False)
    before = {name: tensor.clone() for name, tensor in start.state_dict().items()}
    net = splice(start, other, "fc", bn="keep")
    assert type(net) is type(start) and net.training and not net.bn1.training
    assert not net.fc.bias.requires_grad and net.fc.weight.requires_grad
    with torch.no_grad():
        for tensor in net.state_dict().values():
            tensor.zero_()
    assert all(torch.equal(t, before[n]) for n, t in start.state_dict().items())
    assert other.fc.weight.all()


def test_a_module_brings_all_it_holds():
    def block():
        return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))

    trained, other = (
        nn.Sequential(block(), nn.Linear(2, 2)),
        nn.Sequential(block(), nn.Linear(2, 2)),
    )
    names = {"0.0.weight", "0.0.bias", "0.1.weight", "0.1.bias"}
    assert taken(splice(trained, other, "0", bn="keep"), trained, other) == names


@pytest.mark.parametrize("bn", ["keep", "source", "recalibrate"])
def test_without_batch_norm_any_policy_does_and_needs_no_data(bn):
    trained, other = nn.Linear(2, 2), nn.Linear(2, 2)
    assert taken(splice(trained, other, None, bn=bn), trained, other) == {"weight", "bias"}


def test_tied_tensors_are_taken_once_and_stay_tied():
    def tied():
        net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
        net[1].weight = net[0].weight
        return net

    trained, other = tied(), tied()
    state = {"1.weight": other[0].weight}
    for layer in ("0", "1"):
        net = splice(trained, state, layer, bn="keep")
        assert net[1].weight is net[0].weight and torch.equal(net[0].weight, other[0].weight)
    with pytest.raises(ValueError, match=r"two values for '0\.weight'"):
        splice(trained, {**state, "0.weight": torch.ones(2, 2)}, "0", bn="keep")


def test_checkpoints_of_another_network_are_refused(trained, other):
    state = other.state_dict()
    wider = {**state, "fc.weight": torch.ones(5, 64)}
    with pytest.raises(ValueError, match=r"fc\.weight \(5, 64\) instead of \(4, 64\)"):
        splice(trained, wider, "conv1", bn="keep")
    with pytest.raises(ValueError, match=r"missing: conv1\.weight.*unexpected: head"):
        fewer = {n: t for n, t in state.items() if n != "conv1.weight"}
        splice(trained, {**fewer, "head": torch.ones(1)}, "fc", bn="keep")
    with pytest.raises(ValueError, match=r"'conv1\.weight' as torch\.float64"):
        splice(trained, copy.deepcopy(other).double(), "fc", bn="keep")


def test_bad_arguments_are_refused(trained, other, samples, tmp_path):
    with pytest.raises(ValueError, match="bn='batch': give 'keep', 'source' or 'recalibrate'"):
        splice(trained, other, "fc", bn="batch")
    with pytest.raises(TypeError, match="bn"):
        splice(trained, other, "fc")
    with pytest.raises(ValueError, match="bn='recalibrate' needs data"):
        splice(trained, other, "fc", bn="recalibrate")
    with pytest.raises(ValueError, match=r"bn='source' needs data.*bn1, bn2"):
        splice(trained, other, "fc", bn="source")
    with pytest.raises(ValueError, match=r"layers: where='conv3'.*conv1"):
        splice(trained, other, "conv3", bn="keep")
    with pytest.raises(ValueError, match="layers that have no tensors"):
        splice(trained, other, "dropout", bn="keep")
    with pytest.raises(FileNotFoundError, match="no such file"):
        splice(trained, tmp_path / "none.safetensors", "fc", bn="keep")
    (tmp_path / "damaged.safetensors").write_bytes(b"damaged" * 9)
    with pytest.raises(ValueError, match="is no safetensors file"):
        splice(trained, tmp_path / "damaged.safetensors", "fc", bn="keep")
    with pytest.raises(TypeError, match="other is a int"):
        splice(trained, 3, "fc", bn="keep")
    with pytest.raises(TypeError, match=r"Charted.*deploy\(\)"):
        splice(wf.subspace(trained, 3), other, "fc", bn="keep")
