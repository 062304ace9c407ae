"""summary() and verify() of an expanded net."""

import pytest
import torch
from torch import nn

import weightfold as wf


@pytest.fixture
def model():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 6, 5, padding=2),
        nn.Flatten(),
        nn.Linear(6 * 64, 8),
        nn.ReLU(),
        nn.Linear(8, 2),
    )


def number(cell):
    """'13,824' or '13.8k' as a number, -1 if it is none."""
    scale = {"k": 1e3, "M": 1e6, "G": 1e9}
    digits = cell.rstrip("kMG").replace(",", "")
    return float(digits) * scale.get(cell[-1:], 1) if digits.replace(".", "").isdigit() else -1


def test_summary_prints_parameters_kinds_widths_and_costs(model, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")
    x = torch.randn(2, 3, 8, 8)
    net = wf.expand(model, 2, "ck", linear="fc", example_input=x, seed=0)
    net.summary()
    text = capsys.readouterr().out
    training = sum(p.numel() for p in net.parameters())
    deployed = sum(p.numel() for p in model.parameters())
    assert f"{training:,} while training" in text
    assert f"{deployed:,} deployed" in text
    for layer, kind, widths in (
        ("0", "cl", "3-6-8-4"),
        ("3", "ck", "4-8-6"),
        ("5", "fc", "384-768-16-8"),
    ):
        row = next(line for line in text.splitlines() if widths in line)
        cells = [cell.strip() for cell in row.strip("│┃| ").split("│")]
        assert cells[:3] == [layer, kind, widths]
        macs = net.charts[0].config()["layers"][layer]["macs"]
        for what in ("plain", "chain"):
            assert any(abs(number(cell) - macs[what]) <= 0.05 * macs[what] for cell in cells[4:])
    assert "runs as" in text


def test_summary_without_costs(model, capsys):
    wf.expand(model, 2).summary()
    text = capsys.readouterr().out
    assert "3-6-8-4" in text
    assert "plain" not in text


@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_verify_has_a_row_per_layer_and_one_for_the_net(model, execution):
    net = wf.expand(model, 3, "ck", linear="fc", execution=execution, seed=0)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    found = net.verify(torch.randn(2, 3, 8, 8))
    assert [row.layer for row in found.rows] == ["0", "3", "5", "whole net"]
    assert found.worst == max(row.relative for row in found.rows) <= 1e-12
    assert "whole net" in str(found)
    assert all(torch.equal(before[n], t) for n, t in net.state_dict().items())


def test_verify_finds_a_wrong_chain(model):
    """A factor that strides elsewhere than its layer."""
    net = wf.expand(model, 2, where="0", seed=0)
    chain = net.charts[0].chain("0")
    chain[0].padding, chain[1].padding = (0, 0), (1, 1)
    assert net.verify(torch.randn(2, 3, 8, 8)).worst > 1e-3


def test_verify_of_a_subclass_compares_only_what_may_run():
    class Own(nn.Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    net = wf.expand(nn.Sequential(Own(3, 4, 3)), seed=0)
    assert net.verify(torch.randn(1, 3, 5, 5)).worst <= 1e-12
