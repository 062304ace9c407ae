"""Filter-level sharing: each domain owns an exact set of filters and shares the rest.

Zhang, Yang, Liu, Guan: Rethinking hard-parameter sharing in multi-domain learning, section 3.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.mixins import CallContext, FilePerPart, LayerCoordinates, LayerExecution
from weightfold.core.slots import register_at, split_name, tensor_at
from weightfold.methods.share.executors import NormState
from weightfold.methods.share.filters import mask_of, ranges_of
from weightfold.methods.share.layout import Layout, Split, holders, operands_of
from weightfold.methods.share.mixture import Mixture

Domain = str | Mixture | None


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


class Sharing(LayerExecution, CallContext, FilePerPart, LayerCoordinates, Chart):
    """theta of domain d: a gather of shared filters and of d's own; no replaced filter exists.

    Own tensors of different domains are separate Parameters and buffers, so that a step on one
    domain leaves the others bitwise still. `at["domain"]` is a name; where the net runs, also a
    `Mixture`.

    Args:
        layers: Path -> the plain layer, for all of `own`, `norms` and `head`.
        own: Convolution path -> True for each filter (first axis) the domains own.
        norms: Paths of batch norms each domain owns, statistics included.
        head: Path of the classifier.
        classes: Domain -> number of classes.
        shared_head: Rows of one classifier for all, of which a domain uses the first; 0: each
            domain has its own.
        about: Domain -> what goes with it, as JSON values: class names, normalisation.
        plan: Where all this comes from, as JSON values.
    """

    kind = "sharing"

    def __init__(
        self,
        layers: Mapping[str, nn.Module],
        own: Mapping[str, Sequence[bool]],
        norms: Sequence[str],
        head: str,
        classes: Mapping[str, int],
        shared_head: int = 0,
        about: Mapping[str, Any] | None = None,
        plan: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.layout = Layout.of(layers, own, norms, head, shared_head)
        self.classes, self.about, self.plan = dict(classes), dict(about or {}), plan
        self.shared, self.domains = nn.Module(), nn.ModuleDict()
        self.splits: dict[str, list[Split]] = {}
        self._held: dict[str, dict[str, Held]] = {}
        self._running: dict[str, nn.Module] = {}
        start = {f"{p}.{n}": tensor_at(layers[p], n) for p, n in self.layout.tensors}
        parts: dict[str, Tensor] = {}
        for path, name in self.layout.tensors:
            rows = shared_head if path == head else None
            part = self.layout.cut(path, start[f"{path}.{name}"], rows, shared=True)
            if part is not None:
                parts[f"{path}.{name}"] = part
        self._install(self.shared, parts, "shared")
        for domain in classes:
            self.init_domain(domain, start)

    def init_domain(self, domain: str, start: Mapping[str, Tensor]) -> None:
        """Give `domain` its own tensors, cut from a plain network's: name -> value."""
        parts: dict[str, Tensor] = {}
        for path, name in self.layout.tensors:
            rows = self.classes[domain] if path == self.layout.head else None
            part = self.layout.cut(path, start[f"{path}.{name}"], rows, shared=False)
            if part is not None:
                parts[f"{path}.{name}"] = part
        self.install_domain(domain, parts)

    def install_domain(self, domain: str, parts: Mapping[str, Tensor]) -> None:
        """Put the own tensors of a domain in place, as they are."""
        self.domains[domain] = nn.Module()
        self._held[domain] = self._install(self.domains[domain], parts, f"domains.{domain}")
        own = holders(self.domains[domain])
        self.splits[domain] = self.layout.splits_of(holders(self.shared), own)

    def _install(
        self, root: nn.Module, parts: Mapping[str, Tensor], name: str
    ) -> "dict[str, Held]":
        """Register in `root` the layers that hold these tensors; path -> layer and its place."""
        held: dict[str, Held] = {}
        for path, names in self.layout.names.items():
            mine = {name: parts[f"{path}.{name}"] for name in names if f"{path}.{name}" in parts}
            if mine:
                layer = self.layout.holder(path, mine)
                register_at(root, path, layer)
                above, attribute = split_name(path)
                place = root.get_submodule(above)._modules
                held[path] = Held(layer, place, attribute, f"{name}.{path}")
        return held

    def lend(self, domain: str, parts: Mapping[str, Tensor]) -> None:
        """Let a domain run on tensors that stay outside: no parameters, not in the state_dict.

        For a server, whose domains come and go: no module is made.

        Args:
            domain: Of `classes`.
            parts: What the domain owns, by the names of the plain network; not copied.
        """
        self.splits[domain] = self.layout.splits_of(holders(self.shared), self.layout.lent(parts))

    def add(
        self, domain: str, classes: int, start: Mapping[str, Tensor], like: str | None = None
    ) -> None:
        """Add a domain that starts from a plain network's tensors.

        Args:
            domain: Its name.
            classes: Of the domain.
            start: Name -> tensor.
            like: A domain that has the momentum and eps of its batch norms.
        """
        self.classes[domain] = classes
        self.init_domain(domain, start)
        for path, held in self._held[domain].items():
            layer: Any = held.layer
            layer.train(self._running[path].training if self._running else self.training)
            if path in self.layout.norms and like is not None and path in self._held.get(like, {}):
                other: Any = self._held[like][path].layer
                layer.momentum, layer.eps = other.momentum, other.eps

    def uninstall_domain(self, domain: str) -> None:
        """Let go of a domain's own tensors, its own or lent."""
        del self.splits[domain]
        if domain in self.domains:
            del self.domains[domain], self._held[domain]

    def remove(self, domain: str) -> None:
        """Remove a domain."""
        self.uninstall_domain(domain)
        del self.classes[domain]
        self.about.pop(domain, None)

    def _names(self, domain: Domain) -> Sequence[str]:
        """The domains of a call, one a row of the stacked tensors."""
        names = domain.domains if isinstance(domain, Mixture) else (domain,)
        for name in names:
            if name is None or name not in self.splits:
                raise KeyError(f"domain={name!r}; the domains are {', '.join(self.splits)}")
        return names  # type: ignore[return-value]

    def forward(self, *, domain: Domain = None, **at: Any) -> dict[str, Tensor]:
        """The weights of one domain."""
        (name,) = self._names(domain)
        return {p.name: self.layout.join(p, self.classes[name]) for p in self.splits[name]}

    def operands(self, *, domain: Domain = None, **at: Any) -> dict[str, Tensor]:
        """Shared tensors as they are; own ones of all domains of the call, stacked (K, ...)."""
        names = self._names(domain)
        most = max(self.classes[name] for name in names)
        return self.layout.operands([self.splits[name] for name in names], most)

    def states(self, domain: Domain) -> dict[str, list[NormState]]:
        """Path of a batch norm -> how that of each domain of a call runs.

        It trains if both the layer that runs and the domain's own are in train mode; momentum and
        eps are those of the domain's own.
        """
        names = self._names(domain)
        running = {path: self._in_train_mode(path) for path in self.layout.norms}
        return {p: [self._state(p, name, mode) for name in names] for p, mode in running.items()}

    def check(self, domain: Domain) -> None:
        """Refuse domains with a layer that would have to run itself.

        Raises:
            RuntimeError: It was replaced, or has a hook that would never run.
        """
        for name in self._names(domain):
            for held in self._held.get(name, {}).values():  # type: ignore[arg-type]
                held.check()

    def _in_train_mode(self, path: str) -> bool:
        """Whether the layer that runs a batch norm is."""
        return self._running[path].training if path in self._running else self.training

    def _trains(self, names: Sequence[str]) -> bool:
        """Whether a batch norm of one of these domains moves its statistics."""
        training = [path for path in self.layout.norms if self._in_train_mode(path)]
        held = (self._held.get(name, {}).get(path) for path in training for name in names)
        return any(one is None or one.layer.training for one in held)

    def _state(self, path: str, domain: str, running: bool) -> NormState:
        held = self._held.get(domain, {}).get(path)
        # A domain that was lent its tensors has no layer of its own.
        layer: Any = self.layout.skeletons[path] if held is None else held.layer
        batches = None if held is None else layer.num_batches_tracked
        training = running and (held is None or layer.training)
        return NormState(training, layer.momentum, layer.eps, batches)

    def uncached_operands(self, *, domain: Domain = None, **at: Any) -> dict[str, Tensor]:
        """Stacked batch norm statistics, which other forwards of the domains may have moved."""
        names = self._names(domain)
        if len(names) == 1 or not self._trains(names):
            return {}
        return self.layout.operands([[p for p in self.splits[n] if p.buffer] for n in names], 0)

    def executors(self) -> dict[str, nn.Module]:
        """Layers that run several domains at once; those given first are taken to be the net's."""
        made: dict[str, nn.Module] = {p: self.layout.executor(p) for p in self.layout.names}
        self._running = self._running or made
        return made

    def alternatives(self, **at: Any) -> dict[str, tuple[nn.Module, dict[str, Tensor]]]:
        """Every executor with its operands for the domain."""
        operands = self.operands(**(at or self.default_context()))
        executors = {p: e.train(self.training) for p, e in self.executors().items()}
        return {path: (e, operands_of(operands, path)) for path, e in executors.items()}

    def resized_layers(self, *, domain: Domain = None, **at: Any) -> dict[str, nn.Module]:
        """The head, with the domain's number of classes; batch norms as the domain's are set."""
        (name,) = self._names(domain)
        self.check(name)
        layers = {self.layout.head: self.layout.classifier(self.classes[name])}
        for path, (state,) in self.states(name).items():
            norm: Any = copy.deepcopy(self.layout.skeletons[path])
            if (norm.momentum, norm.eps) != (state.momentum, state.eps):
                norm.momentum, norm.eps = state.momentum, state.eps
                layers[path] = norm
        return layers

    @torch.no_grad()
    def write_back(
        self, operands: Mapping[str, Tensor], *, domain: Domain = None, **at: Any
    ) -> None:
        """Batch norm statistics of several domains, from the stacked copies; batches counted."""
        if self._trains(names := self._names(domain)):
            splits = [self.splits[name] for name in names]
            self.layout.write_back(operands, splits, self.states(domain))

    def default_context(self) -> dict[str, Any]:
        """The first domain."""
        return {"domain": next(iter(self.domains))}

    @torch.no_grad()
    def fit(
        self, theta: Mapping[str, Tensor], *, domain: Domain = None, **at: Any
    ) -> dict[str, float]:
        """One domain, or every one, takes theta over, but for heads of other classes; exact."""
        names = list(self.domains) if domain is None else self._names(domain)
        for part in (part for name in names for part in self.splits[name]):
            self.layout.assign(part, theta[part.name])
        return self.residuals(theta, domain=names[0])

    def coordinate_layer(self, name: str) -> nn.Module | None:
        """The convolution of those filters that are shared, or one domain's."""
        path, rows = name.rpartition(".")[0], len(self.get_parameter(name))
        path = path.partition(".")[2] if path.startswith("shared.") else path.split(".", 2)[2]
        return self.layout.convolution(path, rows) if name.endswith(".weight") else None

    def stored_in(self, name: str) -> str | None:
        """The domain a coordinate belongs to."""
        head, _, rest = name.partition(".")
        return rest.partition(".")[0] if head == "domains" else None

    def config(self) -> dict[str, Any]:
        """Masks as ranges of own filters, paths, domains with their classes.

        Raises:
            ValueError: A domain's batch norm has another momentum or eps than the model's, which
                no file keeps.
        """
        layout = self.layout
        for held in self._held.values():
            for path in (path for path in layout.norms if path in held):
                own: Any = held[path].layer
                plain: Any = layout.skeletons[path]
                if (own.momentum, own.eps) != (plain.momentum, plain.eps):
                    raise ValueError(
                        f"{held[path].name!r} has momentum={own.momentum} and eps={own.eps}, the "
                        f"model's {plain.momentum} and {plain.eps}; a file keeps the model's: set "
                        "them in the model before wf.share, or back before saving"
                    )
        return {
            "own": {path: ranges_of(mask) for path, mask in layout.own.items()},
            "norms": layout.norms,
            "head": layout.head,
            "classes": self.classes,
            "shared_head": layout.shared_head,
            "about": self.about,
            "plan": self.plan,
        }

    @classmethod
    def build(  # type: ignore[override]
        cls, net: nn.Module, *, own: dict, norms: list[str], head: str, **config: Any
    ) -> Self:
        """All domains start from the weights of `net`."""
        layers = {path: net.get_submodule(path) for path in (*own, *norms, head)}
        masks = {path: mask_of(own[path], len(tensor_at(layers[path], "weight"))) for path in own}
        return cls(layers, masks, norms, head, **config)

    @classmethod
    def example(cls) -> Example:
        """Two domains that own two of four filters, the batch norm and the classifier."""
        model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(64, 3))
        classes = {"birds": 3, "cars": 3}
        chart = cls.build(
            model, own={"0": [[0, 1], [3, 4]]}, norms=["1"], head="3", classes=classes
        )
        return Example(model, chart, torch.randn(3, 2, 6, 6), {"domain": "cars"}, fits=True)
