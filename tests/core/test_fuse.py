"""Tools that look for `.fuse()` (timm's) fold a net inside a bigger module."""

import pytest
import torch
from torch import nn

import weightfold as wf
from weightfold import Charted


class Bigger(nn.Module):
    """A charted backbone and a head."""

    def __init__(self, backbone):
        super().__init__()
        self.backbone, self.head = backbone, nn.Linear(3, 2).double()

    def forward(self, x):
        return self.head(self.backbone(x))


# reparameterize_model goes on into the children of what it has just replaced; there it meets chains
# whose weights another holds (executors; chains under another level), and asks them to fuse.
@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize("execution", ["fold", "chain"])
def test_timm_folds_a_net_inside_a_module(cases, execution, nested):
    manipulate = pytest.importorskip("timm.models")
    net = wf.expand(cases.Conv().double(), rate=2, seed=0, execution=execution)
    net = wf.subspace(net, dim=5) if nested else net
    cases.shake(net)
    bigger = Bigger(net).eval()
    folded = manipulate.reparameterize_model(bigger)
    assert type(folded.backbone) is cases.Conv
    assert not any(isinstance(m, Charted | wf.Chain) for m in folded.modules())
    x = torch.randn(2, 2, 6, 6).double()
    torch.testing.assert_close(folded(x), bigger(x), rtol=1e-12, atol=1e-12)
    assert isinstance(bigger.backbone, Charted)


def test_timm_folds_chains_of_a_plain_module(cases):
    manipulate = pytest.importorskip("timm.models")
    net = wf.expand(cases.Conv().double(), rate=2, seed=0)
    model = wf.nonlinear_twin(net)
    for name in ("conv1", "conv2"):
        chain = model.get_submodule(name)
        setattr(model, name, wf.Chain(list(chain), chain.plain))
    model.eval()
    folded = manipulate.reparameterize_model(model)
    assert list(folded.state_dict()) == list(cases.Conv().state_dict())
    x = torch.randn(2, 2, 6, 6).double()
    torch.testing.assert_close(folded(x), model(x), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(folded(x), net.eval()(x), rtol=1e-12, atol=1e-12)


def test_a_nonlinear_twin_is_not_folded(cases):
    twin = wf.nonlinear_twin(wf.expand(cases.Conv(), rate=2, seed=0))
    with pytest.raises(RuntimeError, match="no single layer"):
        twin.conv1.fuse()
