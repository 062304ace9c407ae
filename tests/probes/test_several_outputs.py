"""Probes of networks that return more than a tensor, and of tasks with options."""

from typing import NamedTuple

import pytest
import torch
from torch import Tensor, nn

import weightfold as wf
from weightfold.tasks import build

RECIPE = wf.Recipe(epochs=6, batch_size=16, lr=0.5, crop_padding=0, flip=False)
X = torch.randn(48, 6, generator=torch.Generator().manual_seed(0))
DATA = (X, (X[:, 0] > 0).long())
CALL = {"seeds": 1, "recipe": RECIPE, "progress": False}


class Outputs(NamedTuple):
    """As GoogLeNet's."""

    logits: Tensor
    aux_logits: Tensor


class Several(nn.Module):
    """Auxiliary classifiers in train mode, or always."""

    def __init__(self, seed: int, always: bool) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.body, self.head = nn.Linear(6, 8), nn.Linear(8, 2)
            self.side = nn.Linear(8, 2)
        self.always = always

    def forward(self, x: Tensor) -> Tensor | Outputs:
        x = self.body(x).relu()
        if self.training or self.always:
            return Outputs(self.head(x), self.side(x))
        return self.head(x)


@pytest.mark.parametrize("always", [False, True])
def test_layers_of_networks_with_auxiliary_classifiers(always):
    found = wf.layer_reset(lambda s: Several(s, always), (DATA, DATA), bn="keep", **CALL)
    wanted = wf.layer_reset(lambda s: Several(s, False), (DATA, DATA), bn="keep", **CALL)
    assert found.cells == wanted.cells
    assert "head" in [unit.name for unit in found.units]


PROBES = {
    "intrinsic": lambda make, data: wf.intrinsic_dimension(make, data, d_max=4, **CALL),
    "ticket": lambda make, data: wf.lottery_ticket(make, data, rounds=1, validation=8, **CALL),
    "memorization": lambda make, data: wf.memorization(make, data, **CALL),
    "ledger": lambda make, data: wf.example_ledger(make, data, **CALL),
    "critical": lambda make, data: wf.critical_sample_ratio(
        make, data, radius=0.3, seeds=1, progress=False
    ),
}


@pytest.mark.parametrize("probe", PROBES.values(), ids=PROBES)
def test_other_probes_read_the_main_output(probe):
    assert probe(lambda seed: Several(seed, True), (DATA, DATA))


def test_outputs_without_a_main_one_are_refused():
    net = nn.Sequential(nn.Linear(6, 2))
    net.register_forward_hook(lambda module, args, out: (out, out))
    with pytest.raises((TypeError, ValueError), match=r"output=None"):
        wf.layer_reset(net, (DATA, DATA), bn="keep", **CALL)


@pytest.mark.parametrize("options", [{"output": 1}, {"aux_weight": 0.5}, {"label_smoothing": 0.1}])
def test_options_of_a_task_that_no_probe_heeds_are_refused(options):
    task = build("classify", (DATA, DATA), **options)
    (name, value), *_ = options.items()
    with pytest.raises(ValueError, match=f"{name}={value}"):
        wf.layer_reset(lambda s: Several(s, False), task, bn="keep", **CALL)
