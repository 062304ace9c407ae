"""A convolution inside its fully-connected space: the matrix is Phi psi, psi the kernel.

d'Ascoli et al., "Finding the Needle in the Haystack with Convolutions" (eFCN), section 2. The model
below is fully connected; Phi writes each kernel into its layer's matrix and is linear.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call, vjp

from weightfold.core.chart import Chart, Example
from weightfold.core.mixins import LayerExecution
from weightfold.core.slots import register_at, with_placeholders

ARGUMENTS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


class MatrixLayer(nn.Linear):
    """A dense layer between images: (N, *in_shape) -> (N, *out_shape)."""

    def __init__(self, in_shape: Sequence[int], out_shape: Sequence[int], bias: bool) -> None:
        super().__init__(prod(in_shape), prod(out_shape), bias)
        self.in_shape, self.out_shape = tuple(in_shape), tuple(out_shape)

    def forward(self, input: Tensor) -> Tensor:
        """Flatten, multiply, shape."""
        return super().forward(input.flatten(1)).unflatten(1, self.out_shape)


class ConvolutionMatrix(LayerExecution, Chart):
    """Dense weights (out pixels, in pixels) of MatrixLayers, written by convolution kernels.

    Args:
        convolutions: Path of a MatrixLayer in the model below -> the convolution, its psi.
        in_shapes: Path -> (C, *size) of the layer's input.
        execution: "fold" runs the matrices, "chain" the convolutions themselves.
    """

    kind = "matrix"

    def __init__(
        self,
        convolutions: Mapping[str, nn.Conv2d],
        in_shapes: Mapping[str, Sequence[int]],
        execution: str = "fold",
    ) -> None:
        super().__init__()
        self.specs: dict[str, dict[str, Any]] = {}
        self.execution = execution
        for path, convolution in convolutions.items():
            arguments = {key: getattr(convolution, key) for key in ARGUMENTS}
            shape, bias = tuple(in_shapes[path]), convolution.bias is not None
            self.specs[path] = {"in_shape": shape, "bias": bias, **arguments}
            register_at(self, path, convolution)

    def convolution(self, path: str) -> nn.Conv2d:
        """The convolution that writes the layer at `path`."""
        return self.get_submodule(path)  # type: ignore[return-value]

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """Phi psi: the convolution of every unit image; biases repeated over the pixels."""
        theta: dict[str, Tensor] = {}
        for path, spec in self.specs.items():
            shape, convolution = spec["in_shape"], self.convolution(path)
            kernel = convolution.weight
            units = torch.eye(prod(shape), dtype=kernel.dtype, device=kernel.device)
            units = units.view(-1, *shape)
            images = convolution._conv_forward(units, kernel, None)
            theta[f"{path}.weight"] = images.flatten(1).t()
            if (bias := convolution.bias) is not None:
                theta[f"{path}.bias"] = bias.repeat_interleave(images.shape[2:].numel())
        return theta

    def alternatives(self, **at: Any) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
        """The convolutions."""
        return {p: (m := self.get_submodule(p), dict(m.named_parameters())) for p in self.specs}

    def executors(self) -> dict[str, nn.Module]:
        """The convolutions, if they run."""
        if self.execution == "fold":
            return {}
        return {p: with_placeholders(m, list(psi)) for p, (m, psi) in self.alternatives().items()}

    def operands(self, **at: Any) -> dict[str, Tensor]:
        """Matrices, or the kernels themselves."""
        return self() if self.execution == "fold" else dict(self.named_parameters())

    @torch.no_grad()
    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Least squares: columns of Phi do not overlap, so psi = Phi^T theta / Phi^T Phi 1."""
        psi = dict(self.named_parameters())
        image, pull = vjp(lambda psi: functional_call(self, psi, ()), psi)  # type: ignore[misc]
        (sums,) = pull({name: theta[name] for name in image})
        (counts,) = pull(functional_call(self, {n: torch.ones_like(p) for n, p in psi.items()}, ()))
        for name, parameter in psi.items():
            parameter.copy_(sums[name] / counts[name].clamp_min(1))
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """Input shapes and every convolution's arguments."""
        return {"layers": self.specs, "execution": self.execution}

    @classmethod
    def build(  # type: ignore[override]
        cls, net: nn.Module, *, layers: dict[str, dict[str, Any]], execution: str
    ) -> Self:
        """Convolutions in torch's default initialisation, on the CPU for matrices on meta."""
        convolutions = {}
        for path, layer in layers.items():
            matrix = net.get_parameter(f"{path}.weight")
            options = {key: value for key, value in layer.items() if key != "in_shape"}
            device = "cpu" if matrix.is_meta else matrix.device
            convolutions[path] = nn.Conv2d(**options, device=device, dtype=matrix.dtype)
        return cls(convolutions, {p: layer["in_shape"] for p, layer in layers.items()}, execution)

    @classmethod
    def example(cls) -> Example:
        """A strided, padded, grouped convolution as a matrix."""
        convolution = nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2)
        layer = MatrixLayer((2, 6, 6), (4, 3, 3), bias=True)
        model = nn.Sequential(layer, nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 3))
        return Example(model, cls({"0": convolution}, {"0": (2, 6, 6)}), torch.randn(3, 2, 6, 6))
