"""The layers that hold what domains own: of the plain classes, so that loops by class find them."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from torch import Tensor, nn

from weightfold.core.slots import register_at, split_name
from weightfold.methods.share.executors import NormState
from weightfold.methods.share.layout import Layout


class Held(NamedTuple):
    """A layer that holds a domain's own tensors, and where it is registered.

    Attributes:
        layer: Of the plain layer's class; it never runs.
        place: The modules of the one above it.
        attribute: Its name there.
        name: Its name in the chart.
    """

    layer: nn.Module
    place: Mapping[str, nn.Module | None]
    attribute: str
    name: str

    def check(self) -> None:
        """Refuse what would have no effect.

        Raises:
            RuntimeError: Another layer is in its place, or it has hooks.
        """
        layer = self.layer
        if (now := self.place[self.attribute]) is not layer:
            raise RuntimeError(
                f"{self.name!r} was replaced by a {type(now).__name__}, which would not run; "
                "freeze batch norms by eval() and requires_grad_(False), convert layers before "
                "wf.share"
            )
        if layer._forward_hooks or layer._backward_hooks or layer._backward_pre_hooks:
            raise RuntimeError(
                f"{self.name!r} has a hook, but only holds tensors and never runs; register hooks "
                "before wf.share, or on the layer in net.model"
            )


class OwnLayers:
    """What the domains' own layers say of how batch norms run, which the executors follow.

    Args:
        layout: Of the tensors.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self.held: dict[str, dict[str, Held]] = {}
        """Domain -> path of a layer -> it."""
        self.running: dict[str, nn.Module] = {}
        """Path -> the layer that runs in the net."""

    def cut(
        self, start: Mapping[str, Tensor], head_rows: int, *, shared: bool
    ) -> dict[str, Tensor]:
        """The shared or own parts of a plain network's tensors, by their names there.

        Args:
            start: Name -> tensor of the plain network.
            head_rows: Of the classifier.
            shared: Which parts.
        """
        parts: dict[str, Tensor] = {}
        for path, name in self._layout.tensors:
            rows = head_rows if path == self._layout.head else None
            part = self._layout.cut(path, start[f"{path}.{name}"], rows, shared=shared)
            if part is not None:
                parts[f"{path}.{name}"] = part
        return parts

    def install(self, root: nn.Module, parts: Mapping[str, Tensor], name: str) -> dict[str, Held]:
        """Register in `root` the layers that hold these tensors; path -> layer and its place."""
        held: dict[str, Held] = {}
        for path, names in self._layout.names.items():
            mine = {name: parts[f"{path}.{name}"] for name in names if f"{path}.{name}" in parts}
            if mine:
                layer = self._layout.holder(path, mine)
                register_at(root, path, layer)
                above, attribute = split_name(path)
                place = root.get_submodule(above)._modules
                held[path] = Held(layer, place, attribute, f"{name}.{path}")
        return held

    def domain(self, domain: str, parts: Mapping[str, Tensor]) -> nn.Module:
        """The module of a domain that holds its own tensors."""
        home = nn.Module()
        self.held[domain] = self.install(home, parts, f"domains.{domain}")
        return home

    def begin(self, domain: str, training: bool, like: str | None) -> None:
        """Give a new domain's layers the mode of those that run, and settings of another domain."""
        others = self.held.get(like, {}) if like is not None else {}
        for path, held in self.held[domain].items():
            layer: Any = held.layer
            layer.train(self.running[path].training if self.running else training)
            if path in self._layout.norms and path in others:
                other: Any = others[path].layer
                layer.momentum, layer.eps = other.momentum, other.eps

    def check(self, names: Sequence[str]) -> None:
        """Refuse domains with a layer that would have to run itself.

        Raises:
            RuntimeError: It was replaced, or has a hook that would never run.
        """
        for name in names:
            for held in self.held.get(name, {}).values():
                held.check()

    def check_kept(self) -> None:
        """Refuse settings that no file keeps.

        Raises:
            ValueError: A domain's batch norm has another momentum or eps than the model's.
        """
        for held in self.held.values():
            for path in (path for path in self._layout.norms if path in held):
                own: Any = held[path].layer
                plain: Any = self._layout.skeletons[path]
                if (own.momentum, own.eps) != (plain.momentum, plain.eps):
                    raise ValueError(
                        f"{held[path].name!r} has momentum={own.momentum} and eps={own.eps}, the "
                        f"model's {plain.momentum} and {plain.eps}; a file keeps the model's: set "
                        "them in the model before wf.share, or back before saving"
                    )

    def states(self, names: Sequence[str], training: bool) -> dict[str, list[NormState]]:
        """Path of a batch norm -> how that of each domain runs.

        It trains if both the layer that runs and the domain's own are in train mode.

        Args:
            names: Of the domains.
            training: The mode of the net, where no layer is known to run.
        """
        found = {}
        for path in self._layout.norms:
            mode = self._in_train_mode(path, training)
            found[path] = [self._state(path, name, mode) for name in names]
        return found

    def reset_norms(self, domain: str, training: bool) -> dict[str, nn.Module]:
        """Batch norms that a domain has set otherwise than the model, by path; without tensors."""
        found: dict[str, nn.Module] = {}
        for path, (state,) in self.states([domain], training).items():
            norm: Any = copy.deepcopy(self._layout.skeletons[path])
            if (norm.momentum, norm.eps) != (state.momentum, state.eps):
                norm.momentum, norm.eps = state.momentum, state.eps
                found[path] = norm
        return found

    def trains(self, names: Sequence[str], training: bool) -> bool:
        """Whether a batch norm of one of these domains moves its statistics."""
        paths = [path for path in self._layout.norms if self._in_train_mode(path, training)]
        held = (self.held.get(name, {}).get(path) for path in paths for name in names)
        return any(one is None or one.layer.training for one in held)

    def _in_train_mode(self, path: str, training: bool) -> bool:
        """Whether the layer that runs a batch norm is."""
        return self.running[path].training if path in self.running else training

    def _state(self, path: str, domain: str, running: bool) -> NormState:
        held = self.held.get(domain, {}).get(path)
        # A domain that was lent its tensors has no layer of its own.
        layer: Any = self._layout.skeletons[path] if held is None else held.layer
        batches = None if held is None else layer.num_batches_tracked
        training = running and (held is None or layer.training)
        return NormState(training, layer.momentum, layer.eps, batches)
