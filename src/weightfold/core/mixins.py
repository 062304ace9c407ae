"""What a chart may do besides computing tensors: mixins that `Charted` and the store ask for.

A chart lists those it needs before `Chart`: `class Expansion(LayerExecution, Described, Chart)`.
`charts_of(net, LayerExecution)` are the charts of a level that have one.
"""

from collections.abc import Callable, Mapping
from typing import Any, Self

from torch import Tensor, nn

NO_CONTEXT: Mapping[str, Any] = {}
"""Per-call coordinates of a call that gives none."""


class LayerExecution:
    """Runs layers of the model below in another way than with theta in their slots.

    The law: a layer with theta = T(psi) and its executor with psi are the same function.
    """

    def executors(self) -> dict[str, nn.Module]:
        """Modules that run in place of layers of the model below, by path; may be empty.

        An executor has empty (None) parameter slots, which `operands` fills on each call. One with
        an attribute `at` finds the per-call coordinates there while it runs.
        """
        raise NotImplementedError

    def operands(self, **at: Any) -> dict[str, Tensor]:
        """Tensors the model below runs with: theta, or psi itself where an executor runs."""
        raise NotImplementedError

    def alternatives(self, **at: Any) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
        """Every layer that has an executor, running or not: path -> (executor, its tensors)."""
        raise NotImplementedError


class CallContext:
    """Computes other tensors in each call: theta depends on the coordinates `at`."""

    def default_context(self) -> dict[str, Any]:
        """One valid value of `at`, with which `Charted` checks names and shapes."""
        raise NotImplementedError

    def resized_layers(self, **at: Any) -> dict[str, nn.Module]:
        """Layers of the deployed model that differ in more than values, by path.

        A classifier whose number of classes depends on `at` is one. New modules, whose computed
        tensors are then filled in.
        """
        return {}

    def uncached_operands(self, **at: Any) -> dict[str, Tensor]:
        """Those of `operands` that every forward inside `Charted.hold` needs anew."""
        return {}

    def write_back(self, operands: Mapping[str, Tensor], **at: Any) -> None:
        """Take over buffers that the forward changed in `operands`, where those are copies."""


class FilePerPart:
    """Has coordinates that one part (a domain) alone uses, which are stored apart."""

    def stored_in(self, name: str) -> str | None:
        """Part that a coordinate is stored with; None: in the shared file."""
        raise NotImplementedError


class LayerCoordinates:
    """Has coordinates that are whole weights of layers, which charts above can treat as such."""

    def coordinate_layer(self, name: str) -> nn.Module | None:
        """The layer, without tensors, whose weight coordinate `name` is; None if of none."""
        raise NotImplementedError


class Described:
    """Has more to say in `Charted.summary` than its number of coordinates."""

    def describe(self) -> list[dict[str, Any]]:
        """Rows, one per layer: column name -> value."""
        raise NotImplementedError


class SeededConstants(nn.Module):
    """Has constants that are not saved because a seed gives them."""

    def regenerate(self) -> None:
        """Compute the constants again."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Apply `fn` as torch does, then refill constants that leave the meta device empty."""
        was_meta = any(b.is_meta for b in self.buffers())
        super()._apply(fn, recurse)
        if was_meta and not any(b.is_meta for b in self.buffers()):
            self.regenerate()
        return self
