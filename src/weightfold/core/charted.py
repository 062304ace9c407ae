"""Charted: an untouched model that runs with theta = T(psi)."""

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, Self, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils._pytree import tree_map

from weightfold.core.chart import Chart
from weightfold.core.checking import chart_list, check_charts
from weightfold.core.copying import compute_again, without_history
from weightfold.core.gradients import coordinates, unreached
from weightfold.core.mixins import NO_CONTEXT, CallContext, Described, LayerExecution
from weightfold.core.precision import doubled, full_precision
from weightfold.core.slots import (
    PlaceholderGuard,
    Slots,
    check_state,
    fill,
    load_state,
    naming_computed,
    replace_module,
    split_name,
    with_placeholders,
)
from weightfold.core.summary import Level, Verification, compare_layers, compare_outputs, summarize
from weightfold.hints import check_type

Mixin = TypeVar("Mixin")
_CLASSES: dict[str, type["Charted"]] = {}


class Charted(nn.Module):
    """A model whose named tensors are computed by charts, once per forward.

    `parameters()` are psi and the tensors no chart computes; of those computed no copy is kept.
    The net trains like any module: autograd, autocast (theta stays in float32), compile, DDP,
    deepcopy, state_dict and torch.func see plain Parameters. It is itself a model, so charts
    stack: the outer one computes the psi of the inner one.

    Not for several threads at once (serve `deploy()`), nor for nn.DataParallel.

    A subclass `class SharedNet(Charted, holds="sharing")` is what `wf.load` makes of a level whose
    first chart is of that kind.

    Args:
        model: Any module or Charted net; left unchanged, its charted tensors are not copied.
        charts: Charts that compute disjoint tensors of `model`.

    Raises:
        KeyError: A chart names a tensor that the model lacks.
        TypeError: `model` is no module, or `charts` are no charts.
        ValueError: A tensor is computed twice, has another shape or dtype than the model's, is
            lazy, or belongs to a recurrent layer.
    """

    def __init_subclass__(cls, holds: str | None = None, **kwargs: Any) -> None:
        """Register the class for charts of the kind `holds`."""
        super().__init_subclass__(**kwargs)
        if holds is not None:
            _CLASSES[holds] = cls

    def __init__(self, model: nn.Module, charts: Iterable[Chart]) -> None:
        super().__init__()
        charts = chart_list(model, charts)
        slots = Slots.of(model)
        computed = check_charts(model, slots, charts)
        self._frozen = {n: not slots.tensors[n].requires_grad for n in computed}
        self._places = {name: slots.places[name] for name in computed}
        self._canonical = slots.canonical
        self._buffer_places = tuple(
            place
            for name, places in self._places.items()
            if not isinstance(slots.tensors[name], nn.Parameter)
            for place in places
        )
        self.model = with_placeholders(model, (place for p in self._places.values() for place in p))
        self._layers: dict[str, nn.Module] = {}
        self._context_layers: list[Any] = []
        for chart in charts:
            executors = chart.executors() if isinstance(chart, LayerExecution) else {}
            for path, executor in executors.items():
                self._layers[path] = replace_module(self.model, path, executor)
                executor.train(self._layers[path].training)
                if hasattr(executor, "at"):
                    self._context_layers.append(executor)
        self.charts = nn.ModuleList(charts)
        self._below = isinstance(model, Charted)
        self._cache: dict[Any, dict[str, Tensor]] | None = None
        self._pulls: list[tuple[Tensor, Tensor]] = []
        self._ddp_params_and_buffers_to_ignore = self.constant_names()

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        """A copy, also of a net in which hooks compute weights."""
        memo |= without_history(self)
        made = type(self).__new__(type(self))
        memo[id(self)] = made
        made.__setstate__(copy.deepcopy(self.__dict__, memo))
        return made

    def apply(self, fn: Callable[[nn.Module], None]) -> Self:
        """As torch's; what `fn` cannot do where a chart computes the weights is named.

        Raises:
            RuntimeError: `fn` failed on a layer whose tensors charts compute.
        """
        return super().apply(naming_computed(self, fn))

    def constant_names(self) -> list[str]:
        """Names of the charts' buffers, of all levels, that never change while training."""
        return [name for name, _ in self.named_buffers() if self._is_constant(name)]

    def _is_constant(self, name: str) -> bool:
        path, attribute = split_name(name)
        while path:
            module = self.get_submodule(path)
            if isinstance(module, Chart):
                return attribute in module.constants
            path = split_name(path)[0]
        return False

    def _compute(self, at: Mapping[str, Any]) -> dict[str, Tensor]:
        check_type("at", at, Mapping)
        with full_precision(self.charts):
            computed = [
                (chart.operands if isinstance(chart, LayerExecution) else chart)(**at)
                for chart in self.charts
            ]
        return {place: t for given in computed for place, t in self._placed(given).items()}

    def _placed(self, operands: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By place in the model: those of one tensor that is tied, or an executor's slot."""
        places = {n: self._places.get(self._canonical.get(n, n), (n,)) for n in operands}
        return {place: operands[name] for name in operands for place in places[name]}

    def _operands(self, at: Mapping[str, Any]) -> dict[str, Tensor]:
        if self._cache is None:
            return self._compute(at)
        key = (torch.is_grad_enabled(), *sorted(at.items()))
        if key not in self._cache:
            leaves: dict[int, Tensor] = {}
            for tensor in (tensors := self._compute(at)).values():
                if tensor.grad_fn is not None and id(tensor) not in leaves:
                    leaves[id(tensor)] = tensor.detach().requires_grad_()
                    self._pulls.append((tensor, leaves[id(tensor)]))
            self._cache[key] = {place: leaves.get(id(t), t) for place, t in tensors.items()}
        with torch.no_grad():
            found = (chart.uncached_operands(**at) for chart in charts_of(self, CallContext))
            anew = [self._placed(operands) for operands in found]
        return {**self._cache[key], **{place: t for given in anew for place, t in given.items()}}

    def forward(self, *args: Any, at: Mapping[str, Any] = NO_CONTEXT, **kwargs: Any) -> Any:
        """Run the model with theta = T(psi).

        Args:
            *args: The model's own.
            at: Per-call coordinates handed to every chart, e.g. `{"domain": "birds"}`.
            **kwargs: The model's own.
        """
        tensors = self._operands(at)
        given = {place: tensors[place] for place in self._buffer_places if place in tensors}
        if self._below:
            kwargs["at"] = at
        self._set_context(at)
        try:
            out = functional_call(self.model, tensors, args, kwargs, tie_weights=False)
        finally:
            self._set_context(NO_CONTEXT)
        for place, buffer in given.items():
            if tensors[place] is not buffer:
                buffer.copy_(tensors[place])
        for chart in charts_of(self, CallContext):
            chart.write_back(tensors, **at)
        return out

    def _set_context(self, at: Mapping[str, Any]) -> None:
        for executor in self._context_layers:
            executor.at = at

    def default_context(self) -> dict[str, Any]:
        """One valid value of `at` for all charts of all levels."""
        found = self.model.default_context() if isinstance(self.model, Charted) else {}
        for chart in charts_of(self, CallContext):
            found |= chart.default_context()
        return found

    def theta(self, at: Mapping[str, Any] = NO_CONTEXT) -> dict[str, Tensor]:
        """The tensors that charts compute, by their names in the deployed model, with gradients.

        Args:
            at: Per-call coordinates.

        Returns:
            Canonical name -> tensor; of nested nets those of every level, in plain names.
        """
        theta: dict[str, Tensor] = {}
        with full_precision(self.charts):
            for chart in self.charts:
                theta |= {self._canonical[n]: t for n, t in chart(**at).items()}
        if not self._below:
            return theta
        places = {f"net.{p}": t for n, t in theta.items() for p in self._places[n]}
        below = _Theta(self.model)  # type: ignore[arg-type]
        inner = functional_call(below, places, (at,), tie_weights=False)
        plain = {short_name(self.model, n): t for n, t in theta.items() if is_plain(self.model, n)}
        return {**plain, **inner}

    def lower(self, at: Mapping[str, Any] = NO_CONTEXT) -> nn.Module:
        """One level down: the model given at construction, as a copy, with theta filled in."""
        check_type("at", at, Mapping)
        with torch.no_grad(), full_precision(self.charts):
            theta: dict[str, Tensor] = {}
            for chart in self.charts:
                theta |= {self._canonical[n]: t for n, t in chart(**at).items()}
        model = copy.deepcopy(self.model, without_history(self.model))
        layers = {path: copy.deepcopy(layer) for path, layer in self._layers.items()}
        for chart in charts_of(self, CallContext):
            layers |= chart.resized_layers(**at)
        for path, layer in layers.items():
            replace_module(model, path, layer.train(model.get_submodule(path).training))
        buffers = set(self._buffer_places)
        tensors: dict[str, Tensor] = {}
        for name, tensor in theta.items():
            tensors[name] = tensor.detach().clone(memory_format=torch.contiguous_format)
            if name not in buffers:
                tensors[name] = nn.Parameter(tensors[name], requires_grad=not self._frozen[name])
        fill(model, self._places, tensors)
        compute_again(model)
        return model

    def deploy(self, at: Mapping[str, Any] = NO_CONTEXT) -> nn.Module:
        """The plain module: original class, state_dict keys, shapes, dtypes, ties; a copy.

        Args:
            at: Per-call coordinates under which to evaluate the charts.
        """
        model = self.lower(at)
        return model.deploy(at) if isinstance(model, Charted) else model

    def fuse(self) -> nn.Module:
        """`deploy()`, for tools that fuse modules (timm); a level under another returns itself."""
        hooks = [h for m in self.charts.modules() for h in m._forward_pre_hooks.values()]
        if any(isinstance(hook, PlaceholderGuard) for hook in hooks):
            return self
        return self.deploy(self.default_context())

    def fit(
        self, state: Mapping[str, Tensor], at: Mapping[str, Any] = NO_CONTEXT
    ) -> dict[str, float]:
        """Load the state_dict of a plain model: psi so that T(psi) is nearest, the rest as it is.

        Args:
            state: Plain state_dict of the deployed architecture.
            at: Per-call coordinates at which to fit; none: at all of them.

        Returns:
            Relative residual per charted tensor, 0 where exact.

        Raises:
            KeyError: Keys are missing, unexpected, or of another shape; the message lists them.
            TypeError: `state` is no mapping of tensors.
        """
        model = self.lower(at or self.default_context())
        residuals = model.fit(state, at) if isinstance(model, Charted) else _load(model, state)
        slots = Slots.of(model)
        theta = {name: slots.tensors[c].detach() for name, c in slots.canonical.items()}
        for chart in self.charts:
            residuals |= chart.fit(theta, **at)  # type: ignore[operator]
        self.model.load_state_dict(model.state_dict(), strict=False)
        return residuals

    @contextmanager
    def hold(self) -> Iterator["Charted"]:
        """Compute theta once for all forwards inside, and pull the gradients back once at the end.

        For gradient accumulation and for several domains in a step: each `at` is computed once,
        backward fills detached copies of theta, and leaving the block adds their gradients to
        psi.grad. Psi must not change inside; an exception inside leaves psi.grad unpulled.

        Raises:
            RuntimeError: `hold` is already in force.
        """
        if self._cache is not None:
            raise RuntimeError("hold() is already in force on this net; leave the outer block")
        with ExitStack() as stack:
            self._cache, self._pulls = {}, []
            stack.callback(self._release)
            if isinstance(self.model, Charted):
                with self.model.hold():
                    yield self
            else:
                yield self
            pulls = [(t, leaf.grad) for t, leaf in self._pulls if leaf.grad is not None]
            if pulls:
                tensors, gradients = zip(*pulls, strict=True)
                torch.autograd.backward(tensors, gradients)

    def _release(self) -> None:
        self._cache, self._pulls = None, []

    def unreached(self) -> list[str]:
        """Names of trainable coordinates without gradient; to be asked after the first backward.

        Forward does not use their weights then, or reads those of the module that was charted: a
        lambda, a closure or a hook in it still holds that module, where the copy runs.
        """
        return unreached(coordinates(self), dict(self.named_parameters()))

    def summary(self) -> None:
        """Print the parameters while training and deployed, and each chart's rows."""
        levels: list[Level] = []
        net: nn.Module = self
        while isinstance(net, Charted):
            for chart in net.charts:
                rows = chart.describe() if isinstance(chart, Described) else []
                size = sum(p.numel() for p in chart.parameters())
                levels.append(Level(str(chart.kind), size, rows))
            net = net.model
        deployed = sum(p.numel() for p in self.deploy(self.default_context()).parameters())
        summarize(self, deployed, levels)

    @torch.no_grad()
    def verify(self, *args: Any, at: Mapping[str, Any] = NO_CONTEXT, **kwargs: Any) -> Verification:
        """Compare, in float64, each layer with its executor and the net with `deploy()`.

        Args:
            *args: An example input of the model.
            at: Per-call coordinates.
            **kwargs: The model's own.

        Returns:
            Rows with absolute and relative differences, per layer that has an executor, and of
            the whole net; where that returns several tensors, of the one that differs most.

        Raises:
            TypeError: The model's outputs hold no tensor.
            ValueError: The model does not run in float64.
        """
        net = copy.deepcopy(self).double().eval()
        args, kwargs = tree_map(doubled, (args, kwargs))
        at = at or net.default_context()
        plain = net.lower(at)
        executors = [chart.alternatives(**at) for chart in charts_of(net, LayerExecution)]
        below = {"at": at} if isinstance(plain, Charted) else {}
        try:
            rows = compare_layers(plain, executors, lambda: plain(*args, **kwargs, **below))
        except (RuntimeError, TypeError) as error:
            raise ValueError(
                f"{type(plain).__name__} does not run on these inputs in float64 ({error}); give "
                "what its forward takes, and let it take dtypes from its inputs"
            ) from error
        outputs = net(*args, at=at, **kwargs), net.deploy(at)(*args, **kwargs)
        return Verification((*rows, compare_outputs("whole net", *outputs)))


def charts_of(net: Charted, mixin: type[Mixin]) -> list[Mixin]:
    """The charts of a net's own level that have a mixin."""
    return [chart for chart in net.charts if isinstance(chart, mixin)]


def charted_class(charts: list[Chart]) -> type[Charted]:
    """The class of the net that these charts of one level live in."""
    return _CLASSES.get(charts[0].kind, Charted) if charts else Charted


def short_name(net: nn.Module, name: str) -> str:
    """`name` without the levels of Charted: 'model.charts.0.conv1.0.weight' -> 'conv1.0.weight'."""
    while isinstance(net, Charted):
        head, _, rest = name.partition(".")
        if head != "model":
            return rest.partition(".")[2]
        net, name = net.model, rest
    return name


def is_plain(net: nn.Module, name: str) -> bool:
    """Whether tensor `name` of `net` is one of the deployed model, not a coordinate of a chart."""
    while isinstance(net, Charted):
        if not name.startswith("model."):
            return False
        net, name = net.model, name.removeprefix("model.")
    return True


class _Theta(nn.Module):
    """Calls `net.theta` where functional_call can only call forward."""

    def __init__(self, net: Charted) -> None:
        super().__init__()
        self.net = net

    def forward(self, at: Mapping[str, Any]) -> dict[str, Tensor]:
        return self.net.theta(at)


def _load(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, float]:
    """Strictly load a plain state_dict, with an error that lists what differs."""
    check_state(model.state_dict(), state)
    load_state(model, state)
    return {}
