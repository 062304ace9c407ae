"""torch.compile: fullgraph, one graph over five training steps, the same weights as eager."""

import copy

import pytest
import torch
from torch._dynamo.backends.debugging import aot_eager

import weightfold as wf


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def train(run, net, x, steps=5):
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        run(x + step).square().mean().backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()


def compare(case, net, backend, tolerance):
    x, at = case.x, case.at
    other = copy.deepcopy(net)
    compiled = torch.compile(net, fullgraph=True, backend=backend)
    train(lambda x: compiled(x, at=at), net, x)
    train(lambda x: other(x, at=at), other, x)
    for (name, a), b in zip(net.state_dict().items(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)


@pytest.mark.parametrize("nested", [False, True])
def test_one_graph_over_five_steps(cases, case, nested):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return aot_eager(graph, inputs)

    net = wf.subspace(case.net, dim=6, seed=1) if nested else case.net
    cases.shake(net)
    compare(case, net.train(), backend, 1e-12)
    assert len(graphs) == 1
