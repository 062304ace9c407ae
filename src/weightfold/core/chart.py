"""The extension point: a chart maps coordinates psi to named weights theta = T(psi)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

_CHARTS: dict[str, type["Chart"]] = {}


@dataclass(frozen=True)
class Example:
    """A small case that shows a chart at work; the contract tests run every law on it.

    Attributes:
        model: The module whose tensors the chart computes.
        chart: The chart.
        x: An input of `model`, any float dtype.
        at: Per-call coordinates under which the chart is evaluated.
        fits: Whether `fit` can reach any weights exactly (a surjective chart).
    """

    model: nn.Module
    chart: "Chart"
    x: Tensor
    at: dict[str, Any] = field(default_factory=dict)
    fits: bool = False


class Chart(nn.Module):
    """Coordinates psi (ordinary Parameters) and the map T from them to named tensors.

    A method's chart defines `forward`, `fit`, `config`, `build` and `example`; what few charts do
    besides stands in `weightfold.core.mixins`. `forward` is a pure function of psi: differentiable,
    out of place, without random numbers and without branches on values. A subclass with a `kind`
    is registered by being defined, and `wf.load` then knows it.

    Attributes:
        kind: Name under which the chart is registered and saved.
        constants: Names of buffers (a projection, a mask) that never change while training;
            DistributedDataParallel is told not to broadcast them.
    """

    kind: ClassVar[str]
    constants: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Register the class.

        Raises:
            ValueError: Another class has its `kind`.
        """
        super().__init_subclass__(**kwargs)
        if "kind" not in vars(cls):
            return
        known = _CHARTS.get(cls.kind, cls)
        if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"kind={cls.kind!r} of {cls.__module__}.{cls.__qualname__} is that of "
                f"{known.__module__}.{known.__qualname__} already; give it another"
            )
        _CHARTS[cls.kind] = cls

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """Compute theta.

        Args:
            **at: Per-call coordinates, e.g. `domain`; a chart ignores those it does not know.

        Returns:
            Full tensor name in the model below -> tensor of that tensor's shape and dtype.
        """
        raise NotImplementedError

    def fit(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Move psi, in place, so that T(psi) is as near to `theta` as can be.

        Args:
            theta: Tensors by name, at least those that `forward` returns.
            **at: Per-call coordinates at which to fit; none: at all of them.

        Returns:
            Relative residual ||T(psi) - theta|| / ||theta|| per name; 0 is exact.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """JSON-able arguments from which `build` makes this chart again, psi apart.

        Under another level of Charted the slots of psi are None, so that nothing is read from them.
        """
        raise NotImplementedError

    @classmethod
    def build(cls, net: nn.Module, **config: Any) -> Self:
        """Make the chart for `net` from what `config` returned."""
        raise NotImplementedError

    @classmethod
    def example(cls) -> Example:
        """A small case for the contract tests and the documentation."""
        raise NotImplementedError

    def residuals(self, theta: Mapping[str, Tensor], **at: Any) -> dict[str, float]:
        """Relative distance of T(psi) from `theta`, per name that this chart computes."""
        with torch.no_grad():
            return {
                name: (
                    torch.linalg.vector_norm((tensor - theta[name]).double())
                    / torch.linalg.vector_norm(theta[name].double()).clamp_min(1e-300)
                ).item()
                for name, tensor in self(**at).items()
            }


def registered_charts() -> dict[str, type[Chart]]:
    """Kind -> class, of every chart defined so far; `weightfold.methods.catalogue` finds ours."""
    return dict(_CHARTS)
