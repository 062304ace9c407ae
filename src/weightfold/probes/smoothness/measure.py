"""One moment of a training: the loss ahead, the shift of layers' gradients, the activations."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from weightfold.core.slots import split_name
from weightfold.probes.objective import Objective

CAP = 0.4
"""The farthest point along the gradient, in gradients: as in the paper's Figure 4."""

BINS = 40
SAMPLED = 20_000


@dataclass(frozen=True)
class Shift:
    """Internal covariate shift of a layer, as Santurkar et al. 2018 define it (definition 2.1).

    Attributes:
        layer: Its path.
        l2: |G - G'|: its gradient, and that on the same batch once the layers below have moved.
        cosine: Of the angle between the two; None if one is 0.
        gradient: |G|.
    """

    layer: str
    l2: float
    cosine: float | None
    gradient: float


@dataclass(frozen=True)
class Moment:
    """The loss along the gradient, from one point of a training.

    Attributes:
        step: Optimizer steps taken.
        loss: Of the batch, in train mode.
        gradient: Norm of its gradient g.
        losses: Lowest and highest loss at theta - a g, a in (0, 0.4].
        changes: Smallest and largest |g(theta - a g) - g|.
        beta: Effective smoothness: the largest |g(theta - a g) - g| / |a g|.
        shifts: One for each layer but the first.
    """

    step: int
    loss: float
    gradient: float
    losses: tuple[float, float]
    changes: tuple[float, float]
    beta: float
    shifts: tuple[Shift, ...]


def moment(objective: Objective, step: int, *, points: int, lr: float, shifts: bool) -> Moment:
    """Measure where the network is.

    Every gradient is of the same batch, and where something is random, of the same random numbers.

    Args:
        objective: One batch, batch norm with its statistics.
        step: Optimizer steps taken.
        points: Along the gradient.
        lr: Of the step that moves the layers below.
        shifts: Whether to measure the layers' shifts.
    """
    theta = objective.flat()
    at = _seeded(objective, step)
    loss, g = at(theta)
    norm = g.norm().item()
    losses, changes, betas = [], [], []
    for i in range(1, points + 1):
        a = CAP * i / points
        value, slope = at(theta - a * g)
        losses.append(value)
        changes.append((slope - g).norm().item())
        betas.append(changes[-1] / max(a * norm, 1e-30))
    found = _shifts(objective, at, theta, g, lr) if shifts else ()
    return Moment(
        step,
        loss,
        norm,
        (min(losses), max(losses)),
        (min(changes), max(changes)),
        max(betas),
        found,
    )


def _seeded(objective: Objective, seed: int) -> Callable[[Tensor], tuple[float, Tensor]]:
    devices = [objective.device] if objective.device.type == "cuda" else []

    def at(point: Tensor) -> tuple[float, Tensor]:
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            return objective.gradient(objective.split(point))

    return at


def _shifts(
    objective: Objective,
    at: Callable[[Tensor], tuple[float, Tensor]],
    theta: Tensor,
    g: Tensor,
    lr: float,
) -> tuple[Shift, ...]:
    """Layers in the order in which the network registers them."""
    moved, found = theta - lr * g, []
    for layer, (first, end) in spans(objective).items():
        if first == 0:
            continue
        _, after = at(torch.cat([moved[:first], theta[first:]]))
        ours, theirs = g[first:end].double(), after[first:end].double()
        norms = ours.norm().item(), theirs.norm().item()
        cosine = (ours @ theirs).item() / (norms[0] * norms[1]) if min(norms) > 0 else None
        found.append(Shift(layer, (theirs - ours).norm().item(), cosine, norms[0]))
    return tuple(found)


def spans(objective: Objective) -> dict[str, tuple[int, int]]:
    """Where the weights of each layer lie in the vector: those with a tensor of two dimensions."""
    found: dict[str, tuple[int, int]] = {}
    place = 0
    for name, tensor in objective.start.items():
        path = split_name(name)[0]
        if tensor.dim() > 1:
            found[path] = (place, place + tensor.numel())
        place += tensor.numel()
    return found


@torch.no_grad()
def activations(net: nn.Module, layers: list[str], inputs: Tensor) -> dict[str, Tensor]:
    """What some layers give on a batch, in train mode: path -> a sample of the values, float32."""
    found: dict[str, Tensor] = {}

    def keep(path: str) -> Callable[..., None]:
        def hook(module: nn.Module, args: object, output: Tensor) -> None:
            values = output.detach().flatten().float().cpu()
            found[path] = values[:: max(1, len(values) // SAMPLED)]

        return hook

    hooks = [net.get_submodule(p).register_forward_hook(keep(p)) for p in layers]
    try:
        with torch.random.fork_rng([inputs.device] if inputs.is_cuda else []):
            net(inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


@dataclass(frozen=True)
class Histograms:
    """How a layer's outputs are distributed over a training.

    Attributes:
        layer: Its path.
        edges: Of the bins.
        steps: Optimizer steps at which it was looked at.
        shares: For each step, the share of values in each bin.
    """

    layer: str
    edges: tuple[float, ...]
    steps: tuple[int, ...]
    shares: tuple[tuple[float, ...], ...]


def histograms(layer: str, values: Mapping[int, Tensor]) -> Histograms:
    """Of step -> values, over bins between the 0.5% and 99.5% quantiles of all."""
    pooled = torch.cat([v[:: max(1, len(v) // 2000)] for v in values.values()])
    ends = torch.quantile(pooled[pooled.isfinite()], torch.tensor([0.005, 0.995])).tolist()
    low, high = (ends[0], ends[1]) if ends[0] < ends[1] else (ends[0] - 0.5, ends[0] + 0.5)
    edges = torch.linspace(low, high, BINS + 1)
    shares = [tuple((torch.histc(v, BINS, low, high) / len(v)).tolist()) for v in values.values()]
    return Histograms(layer, tuple(edges.tolist()), tuple(values), tuple(shares))
