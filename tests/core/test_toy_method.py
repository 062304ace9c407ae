"""A method is a folder: that of the toy, which no other file names, is used like ours."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.core.chart import Chart
from weightfold.methods import catalogue


@pytest.fixture
def verb():
    assert "gain" in catalogue()
    from weightfold.methods.gain.verb import gain

    return gain


def test_its_net_trains_saves_loads_reports_and_deploys(cases, verb, tmp_path, capsys):
    net = verb(cases.Conv(), where=nn.Conv2d)
    x = torch.randn(2, 2, 6, 6)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(x).square().mean().backward()
    optimizer.step()
    wf.save(net, tmp_path / "net")
    loaded = wf.load(tmp_path / "net", cases.Conv())
    assert torch.equal(loaded.eval()(x), net.eval()(x))
    loaded.summary()
    assert "gain: " in capsys.readouterr().out
    plain = loaded.deploy()
    assert type(plain) is cases.Conv
    torch.testing.assert_close(plain(x), net(x))
    assert net.verify(x).worst < 1e-12


def test_it_stacks_with_ours(cases, verb):
    net = wf.subspace(verb(cases.Conv()), 5)
    x = torch.randn(2, 2, 6, 6)
    torch.testing.assert_close(net.deploy().eval()(x), net.eval()(x))


def test_a_kind_is_of_one_class():
    with pytest.raises(ValueError, match="kind='mask'"):

        class Other(Chart):
            kind = "mask"
