"""ExpandNets: the weight of a layer is a product of the weights of a chain (Guo et al. 2020)."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.mixins import Described, LayerExecution
from weightfold.core.select import plain_layer
from weightfold.core.slots import register_at, with_placeholders
from weightfold.methods.expand.chain import Chain, chains_bias, make_chain, naming
from weightfold.methods.expand.initial import fit_chain


class Expansion(LayerExecution, Described, Chart):
    """CL, CK and FC expansion: theta = fold(chain), or the chain itself where it is cheaper.

    Args:
        chains: Path of a layer in the model below -> its chain, the psi.
        layers: Path -> {"kind", "channels", "execution" ("fold" or "chain"), "macs" or None}.
    """

    kind = "expansion"

    def __init__(self, chains: Mapping[str, Chain], layers: Mapping[str, dict[str, Any]]) -> None:
        super().__init__()
        self.specs = {path: dict(layer) for path, layer in layers.items()}
        for path, chain in chains.items():
            register_at(self, path, chain)

    def chain(self, path: str) -> Chain:
        """The chain that stands for the layer at `path`."""
        return self.get_submodule(path)  # type: ignore[return-value]

    def _tensors(self, path: str, execution: str) -> dict[str, Tensor]:
        if execution == "chain":
            return {f"{path}.{n}": p for n, p in self.chain(path).named_parameters()}
        weight, bias = self.chain(path).fold()
        return {f"{path}.weight": weight} | ({} if bias is None else {f"{path}.bias": bias})

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """The folded weights and biases (Eq. 2 and 3)."""
        return {n: t for path in self.specs for n, t in self._tensors(path, "fold").items()}

    def operands(self, **at: Any) -> dict[str, Tensor]:
        """Folded tensors, or the factors themselves where the chain runs."""
        return {
            name: tensor
            for path, layer in self.specs.items()
            for name, tensor in self._tensors(path, layer["execution"]).items()
        }

    def executors(self) -> dict[str, nn.Module]:
        """Chains, for the layers that run as chains."""
        return {
            path: with_placeholders(
                self.chain(path), [n for n, _ in self.chain(path).named_parameters()]
            )
            for path, layer in self.specs.items()
            if layer["execution"] == "chain"
        }

    def alternatives(self, **at: Any) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
        """Every layer's chain, where that is all the layer does."""
        chains = {path: self.chain(path) for path in self.specs}
        return {p: (c, dict(c.named_parameters())) for p, c in chains.items() if c.exact}

    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Least change of one factor per layer; exact for CL and FC at rate >= 1."""
        for path in self.specs:
            with naming(path):
                fit_chain(self.chain(path), theta[f"{path}.weight"], theta.get(f"{path}.bias"))
        return self.residuals(theta)

    def config(self) -> dict[str, Any]:
        """The layers, without their weights."""
        return {"layers": self.specs}

    @classmethod
    def build(cls, net: nn.Module, *, layers: dict[str, dict]) -> Self:  # type: ignore[override]
        """Chains for the layers of `net`, in torch's default initialisation."""
        tensors = dict(net.named_parameters(remove_duplicate=False))
        chains = {}
        for path, spec in layers.items():
            like = tensors[f"{path}.weight"]
            bias = chains_bias(tensors, path)
            chain = make_chain(plain_layer(net, path), spec["channels"], spec["kind"], bias)
            chains[path] = chain.to(like.device, like.dtype).requires_grad_(like.requires_grad)
        return cls(chains, layers)

    def describe(self) -> list[dict[str, Any]]:
        """Kind, widths, execution and multiply-adds of every layer."""
        return [
            {
                "layer": path,
                "kind": layer["kind"],
                "channels": "-".join(map(str, layer["channels"])),
                "runs as": layer["execution"],
                **(layer["macs"] or {}),
            }
            for path, layer in self.specs.items()
        ]

    @classmethod
    def example(cls) -> Example:
        """A CL, a CK run as a chain, and an FC layer."""
        model = nn.Sequential(
            nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2),
            nn.BatchNorm2d(4),
            nn.Conv2d(4, 3, 5, padding=2, bias=False),
            nn.Flatten(),
            nn.Linear(48, 5),
        )
        layers = {
            "0": {"kind": "cl", "channels": [2, 4, 8, 4], "execution": "fold", "macs": None},
            "2": {"kind": "ck", "channels": [4, 8, 3], "execution": "chain", "macs": None},
            "4": {"kind": "fc", "channels": [48, 60, 6, 5], "execution": "fold", "macs": None},
        }
        return Example(model, cls.build(model, layers=layers), torch.randn(3, 2, 8, 8))
