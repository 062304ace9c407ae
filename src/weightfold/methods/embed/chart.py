"""Phi: convolution kernels written into larger layers; a linear chart with a closed-form metric.

d'Ascoli et al., "Finding the Needle in the Haystack with Convolutions" (eFCN), sections 3 and 4.
The model below is fully or locally connected; its weights are Phi psi.
"""

from collections.abc import Mapping
from math import prod
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.mixins import LayerExecution
from weightfold.core.slots import register_at, with_placeholders
from weightfold.methods.embed.geometry import CONVOLUTIONS, Geometry
from weightfold.methods.embed.layers import DenseConv, Embedded, LocalConv
from weightfold.methods.embed.strided import gram, nearest_kernel, read, write

Subspace = Literal["shared", "local"]


class ConvolutionMatrix(LayerExecution, Chart):
    """Weights of `DenseConv` and `LocalConv` layers, written by kernels.

    Psi are the layers of the smaller space: convolutions, or, for dense layers, `LocalConv`.

    Args:
        layers: Path in the model below -> its layer, of which shapes are read; it may be on meta.
        space: "shared", psi are kernels; "local", psi are a kernel for each output position.
        execution: "fold" runs the layers below, "chain" those that psi are of.
    """

    kind = "matrix"

    def __init__(
        self,
        layers: Mapping[str, DenseConv | LocalConv],
        space: Subspace = "shared",
        execution: str = "fold",
    ) -> None:
        super().__init__()
        self.space, self.execution = space, execution
        self.geometries = {path: layer.geometry for path, layer in layers.items()}
        self.dense = {path: layer.space == "dense" for path, layer in layers.items()}
        for path, layer in layers.items():
            register_at(self, path, _smaller(layer, space))

    @classmethod
    def over(
        cls, net: nn.Module, space: Subspace = "shared", execution: str = "fold"
    ) -> "ConvolutionMatrix":
        """The chart of all dense and local layers of a network; psi are not its weights yet.

        Raises:
            ValueError: There is none.
        """
        layers = {
            path: layer
            for path, layer in net.named_modules()
            if isinstance(layer, DenseConv | LocalConv)
        }
        if not layers:
            raise ValueError(
                f"net, a {type(net).__name__}, has no embedded layers; give what wf.embed returns"
            )
        return cls(layers, space, execution)

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """Phi psi, by strided copies; biases repeated over the positions."""
        theta: dict[str, Tensor] = {}
        for path, geometry in self.geometries.items():
            layer = self.get_submodule(path)
            local, weight = self.space == "local", layer.weight
            if self.dense[path]:
                theta[f"{path}.weight"] = write(weight, geometry, local=local)  # type: ignore
            else:
                places = weight if local else weight.flatten(1)  # type: ignore[operator]
                theta[f"{path}.weight"] = places.expand(geometry.local_shape)  # type: ignore
            if (bias := layer.bias) is not None:
                count = prod(geometry.positions)
                theta[f"{path}.bias"] = bias if local else bias.repeat_interleave(count)  # type: ignore
        return theta

    def adjoint(self, theta: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Phi^T: of gradients by weights those by psi, without computing any weight.

        Args:
            theta: Tensors by name, at least those that `forward` returns.
        """
        psi: dict[str, Tensor] = {}
        for path, geometry in self.geometries.items():
            local, weight = self.space == "local", theta[f"{path}.weight"]
            if self.dense[path]:
                psi[f"{path}.weight"] = read(weight, geometry, local=local)
            else:
                summed = weight if local else weight.sum(0).view(geometry.kernel_shape)
                psi[f"{path}.weight"] = summed
            if (bias := theta.get(f"{path}.bias")) is not None:
                summed = bias if local else bias.view(geometry.out_channels, -1).sum(1)
                psi[f"{path}.bias"] = summed
        return psi

    def factors(self) -> dict[str, Tensor]:
        """Eigenvalues of J^T J, that is those of J J^T on the image: how often psi is repeated.

        Returns:
            Name of psi -> float64 tensor of its shape; where entries overlap, of the eigenvalues
            in any order.
        """
        found: dict[str, Tensor] = {}
        for path, geometry in self.geometries.items():
            layer, count = self.get_submodule(path), prod(geometry.positions)
            for name, p in layer.named_parameters(recurse=False):
                values = torch.ones(p.shape, dtype=torch.float64)
                if self.space == "shared":
                    values *= count
                    if name == "weight" and self.dense[path]:
                        products = gram(geometry)
                        eigenvalues = torch.linalg.eigvalsh(products)
                        known = eigenvalues if geometry.overlaps else products.diagonal()
                        values = known.view(geometry.kernel_size).expand(p.shape)
                found[f"{path}.{name}"] = values
        return found

    def alternatives(self, **at: Any) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
        """The layers of the smaller space."""
        layers = {path: self.get_submodule(path) for path in self.geometries}
        return {path: (m, dict(m.named_parameters())) for path, m in layers.items()}

    def executors(self) -> dict[str, nn.Module]:
        """Those, if they run."""
        if self.execution == "fold":
            return {}
        return {p: with_placeholders(m, list(psi)) for p, (m, psi) in self.alternatives().items()}

    def operands(self, **at: Any) -> dict[str, Tensor]:
        """Weights, or psi themselves."""
        return self() if self.execution == "fold" else dict(self.named_parameters())

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Least squares: psi = (Phi^T Phi)^+ Phi^T theta."""
        for path, geometry in self.geometries.items():
            layer, weight = self.get_submodule(path), theta[f"{path}.weight"]
            if self.space == "local":
                found = read(weight, geometry, local=True) if self.dense[path] else weight
            elif self.dense[path]:
                found = nearest_kernel(weight, geometry)
            else:
                found = weight.mean(0).view(geometry.kernel_shape)
            layer.get_parameter("weight").copy_(found)
            if layer.bias is not None:
                bias = theta[f"{path}.bias"]
                by_filter = bias.view(geometry.out_channels, -1).mean(1)
                layer.bias.copy_(bias if self.space == "local" else by_filter)  # type: ignore
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Paths of the layers, in whose modules the shapes are."""
        return {
            "layers": list(self.geometries),
            "space": self.space,
            "execution": self.execution,
        }

    @classmethod
    def build(  # type: ignore[override]
        cls, net: nn.Module, *, layers: list[str], space: Subspace, execution: str
    ) -> Self:
        """Psi as torch initialises them, on the CPU for layers on meta."""
        return cls({path: net.get_submodule(path) for path in layers}, space, execution)  # type: ignore

    @classmethod
    def example(cls) -> Example:
        """A strided, padded, dilated, grouped convolution as a matrix."""
        convolution = nn.Conv2d(2, 4, 3, stride=2, padding=2, dilation=2, groups=2)
        layer = DenseConv(Geometry.of(convolution, (2, 6, 6), folded=True), bias=True)
        model = nn.Sequential(layer, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
        return Example(model, cls({"0": layer}), torch.randn(3, 2, 6, 6))


def convolution_of(geometry: Geometry, bias: bool, **factory: Any) -> nn.Module:
    """A convolution of a geometry, in torch's default initialisation.

    Padding that differs by side, as "same" gives it, is said as "same".
    """
    kind: Any = CONVOLUTIONS[len(geometry.positions) - 1]
    even = all(before == after for before, after in geometry.padding)
    padding = tuple(before for before, _ in geometry.padding) if even else "same"
    return kind(
        geometry.in_shape[0], geometry.out_channels, geometry.kernel_size, geometry.stride,
        padding, geometry.dilation, geometry.groups, bias, geometry.padding_mode, **factory,
    )  # fmt: skip


def _smaller(layer: Embedded, space: Subspace) -> nn.Module:
    """The layer of the smaller space that psi is of."""
    weight, bias = layer.get_parameter("weight"), layer.bias is not None
    factory = {"dtype": weight.dtype, "device": "cpu" if weight.is_meta else weight.device}
    if space == "shared":
        smaller = convolution_of(layer.geometry, bias, **factory)
    else:
        smaller = LocalConv(layer.geometry, bias).to(**factory)
    for name, parameter in layer.named_parameters():
        smaller.get_parameter(name).requires_grad_(parameter.requires_grad)
    return smaller
