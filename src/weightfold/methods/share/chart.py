"""Filter-level sharing: each domain owns an exact set of filters and shares the rest.

Zhang, Yang, Liu, Guan: Rethinking hard-parameter sharing in multi-domain learning, section 3.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from weightfold.core.chart import Chart, Example
from weightfold.core.mixins import CallContext, FilePerPart, LayerCoordinates, LayerExecution
from weightfold.core.slots import tensor_at
from weightfold.methods.share.executors import NormState
from weightfold.methods.share.filters import mask_of, ranges_of
from weightfold.methods.share.layout import Layout, Split, holders, operands_of
from weightfold.methods.share.mixture import Mixture
from weightfold.methods.share.own_layers import OwnLayers

Domain = str | Mixture | None
Tensors = Mapping[str, Tensor]


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
        self._own = OwnLayers(self.layout)
        start = {f"{p}.{n}": tensor_at(layers[p], n) for p, n in self.layout.tensors}
        self._own.install(self.shared, self._own.cut(start, shared_head, shared=True), "shared")
        for domain in classes:
            self.init_domain(domain, start)

    def init_domain(self, domain: str, start: Mapping[str, Tensor]) -> None:
        """Give `domain` its own tensors, cut from a plain network's: name -> value."""
        self.install_domain(domain, self._own.cut(start, self.classes[domain], shared=False))

    def install_domain(self, domain: str, parts: Mapping[str, Tensor]) -> None:
        """Put the own tensors of a domain in place, as they are."""
        self.domains[domain] = home = self._own.domain(domain, parts)
        self.splits[domain] = self.layout.splits_of(holders(self.shared), holders(home))

    def lend(self, domain: str, parts: Mapping[str, Tensor]) -> None:
        """Let a domain run on tensors that stay outside: no parameters, not in the state_dict.

        For a server, whose domains come and go: no module is made.

        Args:
            domain: Of `classes`.
            parts: What the domain owns, by the names of the plain network; not copied.
        """
        self.splits[domain] = self.layout.splits_of(holders(self.shared), self.layout.lent(parts))

    def add(self, domain: str, classes: int, start: Tensors, like: str | None = None) -> None:
        """Add a domain that starts from a plain network's tensors.

        Args:
            domain: Its name.
            classes: Of the domain.
            start: Name -> tensor.
            like: A domain that has the momentum and eps of its batch norms.
        """
        self.classes[domain] = classes
        self.init_domain(domain, start)
        self._own.begin(domain, self.training, like)

    def uninstall_domain(self, domain: str) -> None:
        """Let go of a domain's own tensors, its own or lent."""
        del self.splits[domain]
        if domain in self.domains:
            del self.domains[domain], self._own.held[domain]

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
        return self._own.states(self._names(domain), self.training)

    def check(self, domain: Domain) -> None:
        """Refuse domains with a layer that would have to run itself.

        Raises:
            RuntimeError: It was replaced, or has a hook that would never run.
        """
        self._own.check(self._names(domain))

    def uncached_operands(self, *, domain: Domain = None, **at: Any) -> dict[str, Tensor]:
        """Stacked batch norm statistics, which other forwards of the domains may have moved."""
        names = self._names(domain)
        if len(names) == 1 or not self._own.trains(names, self.training):
            return {}
        return self.layout.operands([[p for p in self.splits[n] if p.buffer] for n in names], 0)

    def executors(self) -> dict[str, nn.Module]:
        """Layers that run several domains at once; those given first are taken to be the net's."""
        made: dict[str, nn.Module] = {p: self.layout.executor(p) for p in self.layout.names}
        self._own.running = self._own.running or made
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
        head = {self.layout.head: self.layout.classifier(self.classes[name])}
        return head | self._own.reset_norms(name, self.training)

    @torch.no_grad()
    def write_back(self, operands: Tensors, *, domain: Domain = None, **at: Any) -> None:
        """Batch norm statistics of several domains, from the stacked copies; batches counted."""
        if self._own.trains(names := self._names(domain), self.training):
            splits = [self.splits[name] for name in names]
            self.layout.write_back(operands, splits, self.states(domain))

    def default_context(self) -> dict[str, Any]:
        """The first domain."""
        return {"domain": next(iter(self.domains))}

    @torch.no_grad()
    def fit(self, theta: Tensors, *, domain: Domain = None, **at: Any) -> dict[str, float]:
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
        self._own.check_kept()
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
