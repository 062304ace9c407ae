from dataclasses import replace

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.train import Options, Start, fit
from weightfold.train.callbacks import KeepWeights
from weightfold.train.checkpoint import load_weights
from weightfold.train.starts import begin, start_maps


@pytest.fixture
def other(dataset, make_net, quick, tmp_path):
    """A finished run that kept its weights on the way."""
    net = make_net(0)
    options = Options(save_at=(0, 5))
    fit(net, dataset, quick, folder=tmp_path / "other", progress=False, options=options)
    return tmp_path / "other", net


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.values(), other.values(), strict=True))


def test_a_run_starts_from_another_at_a_step(other, dataset, make_net, quick, tmp_path):
    folder, trained = other
    net = make_net(7)
    begin(net, Start(folder, at=0))
    assert same(net.state_dict(), make_net(0).state_dict())
    begin(net, Start(folder))
    assert same(net.state_dict(), trained.state_dict())
    begin(net, Start(folder, at=5))
    early, recipe = {n: t.clone() for n, t in net.state_dict().items()}, replace(quick, epochs=1)
    one, two = make_net(8), make_net(9)
    for number, net in enumerate((one, two)):
        options = Options(start=Start(folder, at=5), save_at=(0,))
        fit(net, dataset, recipe, folder=tmp_path / str(number), progress=False, options=options)
    assert same(one.state_dict(), two.state_dict())
    begin(net, Start(tmp_path / "0", at=0))
    assert same(net.state_dict(), early)
    with pytest.raises(FileExistsError, match=r"start\.at: 5 there, 'last' now"):
        options = Options(start=Start(folder), save_at=(0,))
        fit(make_net(), dataset, recipe, folder=tmp_path / "0", progress=False, options=options)
    with pytest.raises(FileNotFoundError, match=r"step-4\.safetensors"):
        begin(net, Start(folder, at=4))
    with pytest.raises(ValueError, match="through='x'"):
        begin(net, Start(folder, through="x"))


@pytest.mark.parametrize("read", [
    lambda net, folder: begin(net, Start(folder)),
    lambda net, folder: load_weights(net, folder / "last.safetensors"),
], ids=["start", "weights"])  # fmt: skip
def test_weights_that_a_finished_run_did_not_end_with_are_refused(other, make_net, read):
    folder, _ = other
    last = folder / "last.safetensors"
    read(make_net(7), folder)
    whole = last.read_bytes()
    last.write_bytes((folder / "step-5.safetensors").read_bytes())  # whole, of another moment
    with pytest.raises(ValueError, match=r"last\.safetensors"):
        read(make_net(7), folder)
    last.write_bytes(whole[:-1])
    with pytest.raises(ValueError, match=r"last\.safetensors"):
        read(make_net(7), folder)


def test_kept_weights_that_were_changed_are_refused(other, make_net):
    path = other[0] / "step-5.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"step-5\.safetensors"):
        begin(make_net(7), Start(other[0], at=5))


def test_a_layer_is_reset(other, make_net):
    folder, trained = other
    net, fresh = make_net(7), make_net(7).state_dict()
    begin(net, Start(folder, through="reset", options={"layers": ("6",)}))
    for name, tensor in net.state_dict().items():
        source = fresh if name.startswith("6.") else trained.state_dict()
        assert torch.equal(tensor, source[name])
    with pytest.raises(ValueError, match="layers has '9'"):
        begin(net, Start(folder, through="reset", options={"layers": ("9",)}))


def test_a_layer_is_set_back_to_an_earlier_step(other, make_net, dataset, quick, tmp_path):
    folder, trained = other
    back = Start(folder, through="reset", options={"layers": ("6",), "to": Start(folder, at=0)})
    net = begin(make_net(7), back)
    for name, tensor in net.state_dict().items():
        source = make_net(0) if name.startswith("6.") else trained
        assert torch.equal(tensor, source.state_dict()[name])
    one = tmp_path / "one"
    fit(net, dataset, quick, folder=one, progress=False, options=Options(start=back))
    further = replace(back, options={"layers": ("6",), "to": Start(folder, at=5)})
    with pytest.raises(FileExistsError, match=r"start\.options"):
        fit(net, dataset, quick, folder=one, progress=False, options=Options(start=further))


def test_a_tied_tensor_is_set_back_in_both_places():
    def tied(value):
        net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        net[1].weight = net[0].weight
        nn.init.constant_(net[0].weight, value)
        return net

    for layer in ("0", "1"):
        net = tied(0.0)
        options = {"layers": (f"{layer}.weight",), "to": {"0.weight": torch.full((2, 2), 2.0)}}
        options["to"] |= {f"{i}.bias": torch.zeros(2) for i in (0, 1)}
        begin(net, Start(tied(1.0), through="reset", options=options))
        assert net[0].weight is net[1].weight and (net[0].weight == 2).all()


def test_another_networks_weights_are_refused(other):
    folder, _ = other
    with pytest.raises(KeyError, match=r"missing: a\."):
        begin(nn.ModuleDict({"a": nn.Linear(2, 2)}), Start(folder))
    (folder / "last.safetensors").write_bytes(b"no tensors")
    with pytest.raises(ValueError, match=r"last\.safetensors"):
        begin(nn.Linear(2, 2), Start(folder))


def test_prune_and_rewind(other, make_net):
    folder, trained = other
    masks = {"6.weight": trained[6].weight.abs() > 0.05}
    ticket = wf.mask(make_net(7), masks, live=True)
    begin(ticket, Start(folder, at=0, through="fit"))
    plain, start = ticket.deploy().state_dict(), make_net(0).state_dict()
    assert torch.equal(plain["0.weight"], start["0.weight"])
    assert torch.equal(plain["6.weight"], start["6.weight"] * masks["6.weight"])


def test_an_expanded_net_is_contracted_and_a_twin_gives_its_weights(make_net):
    net = wf.expand(make_net(3), rate=2, seed=0)
    plain = make_net(4)
    begin(plain, Start(net, through="contract"))
    x = torch.randn(3, 1, 8, 8)
    torch.testing.assert_close(plain.eval()(x), net.eval()(x), rtol=1e-4, atol=1e-5)
    twin = wf.nonlinear_twin(net)
    for parameter in twin.parameters():
        nn.init.normal_(parameter, std=0.1)
    linear = wf.expand(make_net(3), rate=2, seed=0)
    begin(linear, Start(twin, through="twin"))
    wanted = wf.linear_from_twin(net, twin)
    assert same(linear.state_dict(), wanted.state_dict())


def test_the_maps_are_named():
    assert {"identity", "reset", "fit", "contract", "twin"} <= set(start_maps())


def test_weights_are_kept_in_memory(dataset, make_net, quick):
    kept = []

    def keep():
        kept.append(KeepWeights((0, 2), unit=4))
        return kept[-1]

    net, start = make_net(), make_net()
    fit(net, dataset, quick, progress=False, options=Options(callbacks=(keep,)))
    past = kept[0].state[""]
    assert list(past) == [0, 2] and same(past[0], start.state_dict())
    begin(start, Start(past[2]))
    assert same(start.state_dict(), past[2]) and not same(past[2], net.state_dict())
