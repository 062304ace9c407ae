"""The extension point: a chart maps coordinates psi to named weights theta = T(psi)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn


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

    `forward` is a pure function of psi: differentiable, out of place, without random numbers and
    without branches on values. A new method is one file in `weightfold/charts/` that subclasses
    this and defines `forward`, `fit`, `config`, `build` and `example`.

    Attributes:
        kind: Name under which the chart is registered and saved.
        constants: Names of buffers (a projection, a mask) that never change while training;
            DistributedDataParallel is told not to broadcast them.
    """

    kind: ClassVar[str]
    constants: ClassVar[tuple[str, ...]] = ()

    def forward(self, **at: Any) -> dict[str, Tensor]:
        """Compute theta.

        Args:
            **at: Per-call coordinates, e.g. `domain`; a chart ignores those it does not know.

        Returns:
            Full tensor name in the model below -> tensor of that tensor's shape and dtype.
        """
        raise NotImplementedError

    def executors(self) -> dict[str, nn.Module]:
        """Modules that run in place of layers of the model below, by path; none by default.

        An executor has empty (None) parameter slots, which `operands` fills on each call. The law:
        a layer with theta = T(psi) and its executor with psi are the same function. One with an
        attribute `at` finds the per-call coordinates there while it runs.
        """
        return {}

    def operands(self, **at: Any) -> dict[str, Tensor]:
        """Tensors the model below runs with: theta, or psi itself where an executor runs."""
        return self(**at)

    def unheld(self, **at: Any) -> dict[str, Tensor]:
        """Those of `operands` that every forward inside `Charted.hold` needs anew; none mostly."""
        return {}

    def alternatives(self, **at: Any) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
        """Every layer that has an executor, running or not: path -> (executor, its tensors)."""
        return {}

    def remade_layers(self, **at: Any) -> dict[str, nn.Module]:
        """Layers of the deployed model that differ in more than values, by path; none by default.

        A classifier whose number of classes depends on `at` is one. New modules, whose computed
        tensors are then filled in.
        """
        return {}

    def absorb(self, operands: Mapping[str, Tensor], **at: Any) -> None:
        """Take over buffers that the forward changed in `operands`, where those are copies."""

    def somewhere(self) -> dict[str, Any]:
        """One valid value of `at`, with which `Charted` checks names and shapes."""
        return {}

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
    def assemble(cls, net: nn.Module, charts: list["Chart"]) -> nn.Module:
        """The Charted net over `net` in which a chart of this kind lives."""
        from weightfold.core.charted import Charted

        return Charted(net, charts)

    @classmethod
    def example(cls) -> Example:
        """A small case for the contract tests and the documentation."""
        raise NotImplementedError

    def layer_of(self, name: str) -> nn.Module | None:
        """The layer, without tensors, whose whole weight coordinate `name` is; None if of none.

        So that a chart above can treat the coordinate as that layer's (filters that a domain owns
        are a convolution of fewer filters).
        """
        return None

    def stored_in(self, name: str) -> str | None:
        """File a coordinate is stored in; None: the shared one."""
        return None

    def describe(self) -> list[dict[str, Any]]:
        """Rows for `Charted.summary`: one per layer, column name -> value."""
        return []

    def regenerate(self) -> None:
        """Compute again the constants that are not saved because a seed gives them."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn` as torch does, then refill constants that leave the meta device empty."""
        was_meta = any(b.is_meta for b in self.buffers())
        super()._apply(fn, recurse)
        if was_meta and not any(b.is_meta for b in self.buffers()):
            self.regenerate()
        return self

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
