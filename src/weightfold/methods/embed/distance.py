"""How far a network is from the image of a linear chart, and how fast it moves inside."""

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, jvp, vjp

from weightfold.core.chart import Chart
from weightfold.core.charted import Charted
from weightfold.methods.embed.chart import ConvolutionMatrix
from weightfold.methods.embed.geometry import Geometry
from weightfold.methods.embed.layers import Embedded, LocalConv, embedded_layers
from weightfold.methods.embed.strided import gram, nearest_kernel, view, write


def deviation(net: nn.Module, space: Literal["shared", "local"] | Chart = "shared") -> float:
    """||(I - Pi) theta|| / ||theta||, Pi the projection on the image of a linear chart.

    "local" is the paper's delta: the share of weights that no convolution could reach. "shared" is
    the distance to the convolutions themselves; the part of it that is not off-local, the root of
    the difference of the squares, is by how much weight sharing is violated.

    >>> import torch, weightfold as wf
    >>> net = wf.embed(torch.nn.Conv2d(1, 1, 2, bias=False), (1, 3, 3))
    >>> weight = torch.nn.init.ones_(net.weight)  # 16 of 36 are local, and all are equal
    >>> round(wf.deviation(net, "local") ** 2, 4), round(wf.deviation(net, "shared") ** 2, 4)
    (0.5556, 0.5556)

    Args:
        net: What `embed` returned, trained since or not: of its embedded layers. With a chart: any
            network that has the tensors which the chart computes.
        space: "shared", "local", or a linear or affine chart.

    Returns:
        0 for what is in the image, at most 1 for a linear chart.

    Raises:
        ValueError: `net` has no embedded layers, or `space` is none of the choices.
        TypeError: `net` is a Charted net, which is in the image of its own chart.
        KeyError: The chart computes a tensor that `net` has not.
    """
    if isinstance(net, Charted):
        raise TypeError("net is a Charted net; give what its deploy() returns")
    if isinstance(space, Chart):
        return _from_chart(net, space)
    if space not in ("shared", "local"):
        raise ValueError(f"space={space!r}; choose one of ('shared', 'local'), or give a chart")
    off = whole = 0.0
    for layer in embedded_layers(net).values():
        weight, bias = _off(layer, space)
        off += weight + bias
        whole += _square(
            layer.matrix() if layer.space == "lowrank" else layer.get_parameter("weight")
        )
        whole += 0.0 if layer.bias is None else _square(layer.bias)
    return (off / whole) ** 0.5 if whole else 0.0


@torch.no_grad()
def _off(layer: Embedded, space: str) -> tuple[float, float]:
    """Squared distances of the weight and of the bias."""
    geometry, bias = layer.geometry, layer.bias
    shared = space == "shared"
    off_bias = 0.0
    if shared and bias is not None and layer.space != "lowrank":
        rows = bias.view(geometry.out_channels, -1)
        off_bias = _square(rows - rows.double().mean(1, keepdim=True))
    if isinstance(layer, LocalConv):
        weight = layer.weight
        return (_square(weight - weight.double().mean(0)) if shared else 0.0), off_bias
    matrix = layer.matrix().detach()
    off = matrix.clone()
    if shared:
        off -= write(nearest_kernel(matrix, geometry).to(off), geometry)
    else:
        for block in geometry.blocks:
            view(off, block).zero_()
    return _square(off), off_bias


def _square(tensor: Tensor) -> float:
    return torch.linalg.vector_norm(tensor.detach(), dtype=torch.float64).square().item()


def _from_chart(net: nn.Module, chart: Chart) -> float:
    theta = net.state_dict()
    try:
        residuals = copy.deepcopy(chart).fit(theta)
    except KeyError as error:
        raise KeyError(f"net has no tensor {error.args[0]!r}, which the chart computes") from None
    squares = {name: _square(theta[name]) for name in residuals}
    off = sum(residuals[name] ** 2 * square for name, square in squares.items())
    whole = sum(squares.values())
    return (off / whole) ** 0.5 if whole else 0.0


@dataclass(frozen=True)
class Metric:
    """G = J J^T of a chart at its present psi: what a step on psi does to theta.

    A gradient step of rate eta on psi moves theta by -eta G g, g the gradient by theta.

    Attributes:
        chart: The chart.
        factors: Name of psi -> the nonzero eigenvalues of G that belong to it, float64; None where
            they are not known in closed form.
    """

    chart: Chart
    factors: Mapping[str, Tensor] | None

    def product(self, theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """G times a vector.

        Args:
            theta: The vector, by the names of what the chart computes.
        """
        psi = {name: p.detach() for name, p in self.chart.named_parameters()}

        def compute(psi: dict[str, Tensor]) -> dict[str, Tensor]:
            return functional_call(self.chart, psi, ())

        image, pull = vjp(compute, psi)  # type: ignore[misc]
        (back,) = pull({name: theta[name] for name in image})
        return jvp(compute, (psi,), (back,))[1]


def metric(chart: Chart) -> Metric:
    """The metric that a chart induces, G = J J^T.

    >>> import torch, weightfold as wf
    >>> net = wf.embed(torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3)), (1, 6, 6), "shared")
    >>> wf.metric(net.charts[0]).factors["0.weight"].unique()
    tensor([16.], dtype=torch.float64)

    Args:
        chart: Any chart; a convolution's factors are known: how often a weight is repeated.
    """
    known = chart.factors() if isinstance(chart, ConvolutionMatrix) else None
    return Metric(chart, known)


def fair_learning_rate(embedded: nn.Module, lr: float = 1.0) -> dict[str, float]:
    """Rates at which an embedded network moves, on its subspace, as the convolutional one at lr.

    A convolutional network trained at `lr` moves in the larger space at lr times the metric's
    factor: each weight's gradient is summed over the places where it stands. Plain SGD at the
    factor times `lr`, a layer at a time, has the same speed there. Where padding is folded away an
    entry of a kernel stands at fewer places at the border: the factor is the mean over entries.

    >>> import torch, weightfold as wf
    >>> net = wf.embed(torch.nn.Sequential(torch.nn.Conv2d(1, 1, 2)), (1, 3, 3))
    >>> wf.fair_learning_rate(net, lr=0.5)
    {'0.weight': 2.0, '0.bias': 2.0}

    Args:
        embedded: What `embed` returned.
        lr: Rate of the convolutional network.

    Returns:
        Name of each parameter -> its rate; `lr` for layers that are no embedded ones.

    Raises:
        ValueError: `embedded` has no embedded layers.
    """
    rates = {name: float(lr) for name, _ in embedded.named_parameters()}
    for path, layer in embedded_layers(embedded).items():
        if layer.space == "lowrank":
            continue
        prefix = f"{path}." if path else ""
        rates[f"{prefix}weight"] = lr * _repeated(layer.geometry, layer.space == "dense")
        if layer.bias is not None:
            rates[f"{prefix}bias"] = lr * float(layer.geometry.local_shape[0])
    return rates


def _repeated(geometry: Geometry, dense: bool) -> float:
    if not dense:
        return float(geometry.local_shape[0])
    products = gram(geometry)
    return products.diagonal().mean().item()
