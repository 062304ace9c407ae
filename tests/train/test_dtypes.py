"""Networks of other dtypes than float32: trained right, or refused by name."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold.train import Options, Recipe, Run, fit, fit_together

X, Y = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 3
DATA = ((X, Y), (X, Y))
RECIPE = Recipe(epochs=1, batch_size=8, crop_padding=0, flip=False)


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


class Casts(nn.Module):
    """Of two dtypes; its forward casts."""

    def __init__(self):
        super().__init__()
        self.body, self.head = network()[:3], network()[3].double()

    def forward(self, x):
        return self.head(self.body(x).double())


TRAININGS = {
    "fit": lambda net: fit(net, DATA, RECIPE, progress=False),
    "one": lambda net: fit_together({"a": Run(net, DATA, 0)}, RECIPE),
    "unmeasured": lambda net: fit_together(
        {"a": Run(net, DATA, 0)}, RECIPE, options=Options(measure=())
    ),
    "two": lambda net: fit_together(
        {"a": Run(net, DATA, 0), "b": Run(net, DATA, 0)}, RECIPE, together=2
    ),
    "evaluate": lambda net: wf.train.evaluate(net, DATA),
    "intrinsic dimension": lambda net: wf.intrinsic_dimension(
        net, DATA, recipe=RECIPE, seeds=1, progress=False
    ),
    "ticket": lambda net: wf.lottery_ticket(
        net, DATA, recipe=RECIPE, seeds=1, rounds=1, progress=False
    ),
    "reset": lambda net: wf.layer_reset(
        net, DATA, bn="keep", recipe=RECIPE, seeds=1, draws=1, progress=False
    ),
    "memorization": lambda net: wf.memorization(net, DATA, recipe=RECIPE, seeds=1, progress=False),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("way", TRAININGS)
def test_it_is_named(way, dtype):
    with pytest.raises(ValueError, match=f"net=Sequential .*{dtype}"):
        TRAININGS[way](network().to(dtype))


@pytest.mark.parametrize(
    "verb", [lambda n: wf.expand(n, rate=2, seed=0), lambda n: wf.subspace(n, 4)]
)
@pytest.mark.parametrize("way", ["fit", "one", "two"])
def test_it_is_named_of_a_charted_net(way, verb):
    with pytest.raises(ValueError, match=r"net=Charted .*torch\.float64"):
        TRAININGS[way](verb(network().double()))


@pytest.mark.parametrize("way", ["fit", "one", "two", "unmeasured"])
def test_a_network_that_casts_trains(way):
    net = Casts()
    before = net.head.weight.detach().clone()
    TRAININGS[way](net)
    assert net.head.weight.dtype == torch.float64 and not torch.equal(net.head.weight, before)


def test_live_masks_of_two_dtypes_are_refused():
    masks = {"body.0.weight": torch.ones(4, 3, 3, 3), "head.weight": torch.ones(3, 144)}
    with pytest.raises(ValueError, match="float64"):
        wf.mask(Casts(), masks, live=True)
    assert wf.mask(Casts(), masks)(X).dtype == torch.float64
