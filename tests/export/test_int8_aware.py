import copy
import sys

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from weightfold.export import accuracy, quantize_aware, torch_runner


def mean_loss(net, batches):
    with torch.no_grad():
        return torch.stack([cross_entropy(net(x), y) for x, y in batches]).mean().item()


def test_all_weights_are_int8(aware, trained):
    wanted = sorted(tuple(p.shape) for p in trained.net.parameters() if p.dim() >= 2)
    state = aware.state_dict()
    found = sorted(tuple(t.shape) for t in state.values() if t.dtype == torch.int8)
    assert found == wanted
    assert max(t.dim() for t in state.values() if t.dtype != torch.int8) == 1
    assert not [p for p in aware.parameters() if p.requires_grad]


def test_little_accuracy_is_lost(aware, trained):
    before = accuracy(torch_runner(trained.net), trained.test)
    after = accuracy(torch_runner(aware), trained.test)
    assert before > 0.9
    assert after > before - 0.05


def test_without_training_it_is_the_network_rounded(trained):
    """Batch norms with another eps than 1e-5 are folded as they are."""
    net = quantize_aware(trained.net, trained.training, steps=24, lr=0)
    images, _ = trained.test[0]
    with torch.no_grad():
        expected, rounded = trained.net(images), net(images)
    difference = (expected - rounded).abs().max() / expected.abs().max()
    # 8 bits: a few steps of 1/256 of the range; a forgotten batch norm is off by the range.
    assert 0 < difference < 0.05


def test_training_lowers_the_loss_and_leaves_the_module(trained):
    damaged = copy.deepcopy(trained.net).train()
    with torch.no_grad():
        damaged.fc.weight.zero_()
    damaged.requires_grad_(False)
    state = {name: t.clone() for name, t in damaged.state_dict().items()}
    before = mean_loss(copy.deepcopy(damaged).eval(), trained.test)
    net = quantize_aware(damaged, trained.training, steps=24, lr=0.01)
    assert mean_loss(net, trained.test) < 0.5 * before
    assert damaged.training and not damaged.fc.weight.requires_grad
    assert all(torch.equal(state[name], t) for name, t in damaged.state_dict().items())


def test_it_repeats_itself_and_stands_eval_train_and_copies(aware, trained):
    again = quantize_aware(trained.net, trained.training, steps=48, lr=1e-3, cpu="x86")
    images, _ = trained.test[0]
    expected = aware(images)
    assert torch.equal(again(images), expected)
    twin = copy.deepcopy(aware).train()
    assert twin.training and not aware.training
    assert torch.equal(twin(images), expected)
    assert torch.equal(twin.eval()(images), expected)


def test_weights_for_processors_that_saturate_have_seven_bits(aware, trained):
    """Two products of 255 and 64 fit into 16 bits; of 255 and 127 they do not."""
    small = quantize_aware(trained.net, trained.training, steps=24, cpu="x86-without-vnni")
    for net, low, high in ((small, 40, 64), (aware, 100, 128)):
        weights = [t for t in net.state_dict().values() if t.dtype == torch.int8]
        assert low < max(int(t.short().abs().max()) for t in weights) <= high
    before = accuracy(torch_runner(trained.net), trained.test)
    assert accuracy(torch_runner(small), trained.test) > before - 0.05
    with pytest.raises(ValueError, match="cpu='riscv'"):
        quantize_aware(trained.net, trained.training, steps=1, cpu="riscv")


def test_errors(trained, monkeypatch):
    batches = trained.training
    with pytest.raises(ValueError, match="steps=0"):
        quantize_aware(trained.net, batches, steps=0)
    with pytest.raises(ValueError, match="batches is empty"):
        quantize_aware(trained.net, [], steps=5)
    with pytest.raises(ValueError, match="ran out after 2 of steps=5"):
        quantize_aware(trained.net, iter(batches[:2]), steps=5)
    with pytest.raises(FloatingPointError, match="at step 1; use a smaller lr than 1e"):
        quantize_aware(trained.net, [(x * 1e3, y) for x, y in batches], steps=5, lr=1e38)
    with pytest.raises(ValueError, match=r"images of batches has shape \(2, 3, 8, 8\)"):
        quantize_aware(trained.net, [(torch.zeros(2, 3, 8, 8), torch.zeros(2))], steps=5)
    monkeypatch.setitem(sys.modules, "torchao", None)
    with pytest.raises(ImportError, match=r"torchao: pip install 'weightfold\[int8\]'"):
        quantize_aware(nn.Linear(2, 2), batches, steps=5)
