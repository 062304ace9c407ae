"""What a network does between its layers: batches that grow, softmaxes, several outputs."""

import copy
from collections import OrderedDict, namedtuple
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import weightfold as wf
from weightfold.export import ExportError, to_exported_program

Named = namedtuple("Named", ["logits", "features"])


@dataclass
class Output:
    logits: Tensor
    features: Tensor


class Net(nn.Module):
    """A small network; `rows` and `last` say what lies between its layers."""

    def __init__(self, before=None, last=None, head=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
        self.second, self.head = nn.Conv2d(6, 6, 1), head or nn.Linear(6, 4)
        self.before, self.last = before, last

    def forward(self, x):
        images = len(x)
        if self.before is not None:
            x = self.before(self, x)
        x = self.second(F.relu(self.norm(self.conv(x)))).mean((2, 3))
        if len(x) != images:
            x = x.view(images, -1, 6).mean(1)
        y = self.head(x)
        return y if self.last is None else self.last(self, x, y)


def frames(net, x):
    return torch.stack([x, x.flip(3)], 1).flatten(0, 1)


def shifted(net, x):
    """As temporal shift modules: channels of neighbours in the batch."""
    return torch.cat([x[:, :1].roll(1, 0), x[:, 1:]], 1)


def functional(net, x):
    """Reads a layer's weights itself."""
    return x + F.conv2d(x, net.conv.weight, padding=1).mean(1, keepdim=True)


def only_training(net, x):
    return shifted(net, x) if net.training else x


CASES = {
    "frames": {"before": frames},
    "shifted": {"before": shifted},
    "functional": {"before": functional},
    "only training": {"before": only_training},
    "log softmax": {"last": lambda net, x, y: y.log_softmax(1)},
    "softmax in training": {"last": lambda net, x, y: y.softmax(1) if net.training else y},
    "maximum": {"last": lambda net, x, y: y - y.amax(1, keepdim=True)},
    "tuple": {"last": lambda net, x, y: (y, x)},
    "named tuple": {"last": lambda net, x, y: Named(y, x)},
    "dict": {"last": lambda net, x, y: {"logits": y, "features": x}},
    "ordered": {"last": lambda net, x, y: OrderedDict(logits=y, features=x, none=None)},
    "dataclass": {"last": lambda net, x, y: Output(y, x)},
    "best class": {"last": lambda net, x, y: (y, y.argmax(1))},
    "plain": {},
}
IMAGES = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
MIXED = ["a", "a", "b", "b", "a", "b", "a", "b"]
TOGETHER = ("tuple", "named tuple", "dict", "ordered", "dataclass", "plain")


def share(classes=None, **options):
    torch.manual_seed(0)
    model = Net(**options).double()
    options = wf.SharingOptions(head_path="head")
    plan = wf.plan_sharing(model, "random", 0.5, example_input=IMAGES, options=options)
    net = wf.share(model, classes or {"a": 3, "b": 5}, plan)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(0.3 * torch.randn_like(p))
    return net


def tensors(outputs):
    if isinstance(outputs, Output):
        return [outputs.logits, outputs.features]
    if isinstance(outputs, dict):
        return [value for value in outputs.values() if value is not None]
    return list(outputs) if isinstance(outputs, tuple) else [outputs]


def close(found, wanted):
    assert type(found) is type(wanted)
    for a, b in zip(tensors(found), tensors(wanted), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("classes", [{"a": 3, "b": 5}, {"a": 4, "b": 4}])
def test_a_mixture_is_its_domains(case, training, classes):
    net = share(classes, **CASES[case]).train(training)
    before = {n: t.clone() for n, t in net.state_dict().items()}
    other = copy.deepcopy(net)
    batches = {"a": IMAGES[:4], "b": IMAGES[4:]}
    found = net(batches)
    for domain, x in batches.items():
        close(found[domain], other(x, domain=domain))
    for name, tensor in net.state_dict().items():  # statistics, moved by the images alone
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-10, atol=1e-12)
        assert training or torch.equal(tensor, before[name])
    if case == "best class":
        return
    mixed = net(IMAGES, domain=MIXED)
    for domain in net.domains:
        mine = torch.tensor([name == domain for name in MIXED])
        for a, b in zip(tensors(mixed), tensors(other(IMAGES[mine], domain=domain)), strict=True):
            columns = b.shape[1]
            torch.testing.assert_close(a[mine][:, :columns], b, rtol=1e-10, atol=1e-12)
            assert (a[mine][:, columns:] == -torch.inf).all()


@pytest.mark.parametrize("case", CASES)
def test_only_what_must_runs_domain_by_domain(case):
    net, calls = share(**CASES[case]).eval(), []
    net({"a": IMAGES[:2], "b": IMAGES[2:4]})
    net.model.register_forward_pre_hook(lambda module, inputs: calls.append(len(inputs[0])))
    net({"a": IMAGES[:2], "b": IMAGES[2:4]})
    together = case in TOGETHER or case in ("only training", "softmax in training")
    assert calls == ([4] if together else [2, 2])


@pytest.mark.parametrize("case", ["frames", "log softmax", "shifted"])
def test_what_no_one_graph_can_hold_is_refused(case, tmp_path):
    net = share(**CASES[case]).float()
    with pytest.raises(ExportError, match=r"Net.*deploy\(domain="):
        to_exported_program(net, IMAGES.float(), tmp_path / "net.pt2")
    assert not any(tmp_path.iterdir())


def test_outputs_that_cannot_be_joined_are_refused():
    class Opaque:
        def __init__(self, y):
            self.y = y

    net = share(last=lambda net, x, y: Opaque(y)).eval()
    torch.testing.assert_close(
        net({"a": IMAGES[:2], "b": IMAGES[2:4]})["b"].y, net(IMAGES[2:4], domain="b").y
    )
    with pytest.raises(TypeError, match="Opaque"):
        net(IMAGES, domain=MIXED)
    with pytest.raises(ValueError, match="int64"):
        share(last=lambda net, x, y: y.argsort(1)).eval()(IMAGES, domain=MIXED)


def test_noise_that_does_not_run_stops_nothing():
    def choosy(net, x):
        assert len(x) != 4  # as many as there are images of noise
        return x

    net = share(before=choosy).eval()
    found = net(IMAGES, domain=["a"] * 3 + ["b"] * 5)
    torch.testing.assert_close(found[:3, :3], net(IMAGES[:3], domain="a"))
    torch.testing.assert_close(found[3:], net(IMAGES[3:], domain="b"))


@pytest.mark.parametrize("kind", [np.array, lambda ids: [np.int64(i) for i in ids], torch.tensor])
def test_ids_of_any_whole_numbers(kind):
    net = share().eval()
    ids = [0, 1, 1, 0, 1, 0, 0, 1]
    names = [net.domains[i] for i in ids]
    assert torch.equal(net(IMAGES, domain=kind(ids)), net(IMAGES, domain=names))


@pytest.mark.parametrize(
    ("domain", "error"),
    [
        (0, TypeError),
        (np.int64(1), TypeError),
        ({"a": 1}, TypeError),
        ([True, False] * 4, KeyError),
        (torch.ones(8, dtype=torch.bool), ValueError),
        (np.array([0, 1, 2] * 2 + [0, 1]), ValueError),
        ([0.5] * 8, KeyError),
        ([["a"]] * 8, KeyError),
    ],
)
def test_wrong_domains_are_named(domain, error):
    with pytest.raises(error, match="domain"):
        share().eval()(IMAGES, domain=domain)
