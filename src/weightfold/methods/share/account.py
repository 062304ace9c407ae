"""What a plan costs: parameters, bytes and multiply-adds, shared and per domain."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any, Literal

from rich.console import Console, Group
from rich.table import Table

from weightfold.methods.share.layers import Layer
from weightfold.methods.share.names import check_classes, check_names
from weightfold.methods.share.ownership import Ownership
from weightfold.trace import TensorSize

BatchNormCount = Literal["affine", "stats", "all"]
_COUNTED: dict[str, tuple[str, ...]] = {
    "affine": (),
    "stats": ("running_mean", "running_var"),
    "all": ("running_mean", "running_var", "num_batches_tracked"),
}


@dataclass(frozen=True)
class Cost:
    """What something takes.

    Attributes:
        parameters: Elements; which buffers of batch norm count is the account's `bn`.
        bytes: Payload of the tensors in their dtypes, all buffers included, without file headers.
        macs: Multiply-adds for one image of the plan's input size.
    """

    parameters: int = 0
    bytes: int = 0
    macs: int = 0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters + other.parameters, self.bytes + other.bytes, self.macs + other.macs
        )

    def __sub__(self, other: "Cost") -> "Cost":
        return Cost(
            self.parameters - other.parameters, self.bytes - other.bytes, self.macs - other.macs
        )


@dataclass(frozen=True)
class LayerShare:
    """How much of a convolution a domain owns.

    Attributes:
        layer: The convolution.
        own: Number of filters of a domain's own.
    """

    layer: Layer
    own: int

    @property
    def kind(self) -> str:
        """'own', 'part' or 'shared'."""
        return "shared" if not self.own else "own" if self.own == self.layer.filters else "part"

    def as_json(self) -> dict[str, Any]:
        """A row of the table of layers: parameters and multiply-adds, shared and a domain's own."""
        layer, shared = self.layer, self.layer.filters - self.own
        return {
            "layer": layer.path,
            "filters": layer.filters,
            "own_filters": self.own,
            "groups": layer.groups,
            "shared_parameters": shared * layer.weights_per_filter,
            "own_parameters": self.own * layer.weights_per_filter,
            "shared_macs": shared * layer.macs_per_filter,
            "own_macs": self.own * layer.macs_per_filter,
        }


@dataclass(frozen=True)
class Account:
    """What shared and own parts take, beside independent networks; prints as a table.

    An image passes the shared part and its domain's, so its multiply-adds are their sum; totals
    have none.

    Attributes:
        shared: Everything that exists once.
        domains: Domain -> what it owns.
        total: All of that, stored.
        independent: As many whole networks, each with its domain's classifier.
        layers: The convolutions in execution order.
        summary: What was planned, in one sentence.
    """

    shared: Cost
    domains: Mapping[str, Cost]
    total: Cost
    independent: Cost
    layers: tuple[LayerShare, ...]
    summary: str

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The table: keys part, domain, parameters, bytes, macs (None for total, independent)."""
        parts = [("shared", None, self.shared)]
        parts += [("domain", name, cost) for name, cost in self.domains.items()]
        rows = [{"part": part, "domain": name, **asdict(cost)} for part, name, cost in parts]
        for part, cost in (("total", self.total), ("independent", self.independent)):
            rows.append({"part": part, "domain": None, **asdict(cost), "macs": None})
        return rows

    def as_json(self) -> dict[str, Any]:
        """`rows` and a row per layer, JSON values."""
        return {"rows": self.rows, "layers": [layer.as_json() for layer in self.layers]}

    def __rich__(self) -> Group:
        return Group(self.summary, self._parts(), self._runs())

    def __str__(self) -> str:
        console = Console(width=100)
        with console.capture() as capture:
            console.print(self)
        return capture.get()

    __repr__ = __str__

    def _parts(self) -> Table:
        table = Table(
            "part", title="what is stored; multiply-adds of one image", title_justify="left"
        )
        for column in ("parameters", "bytes", "multiply-adds", "of independent"):
            table.add_column(column, justify="right")
        for row in self.rows:
            share = row["parameters"] / self.independent.parameters
            table.add_row(
                row["domain"] or row["part"],
                f"{row['parameters']:,}",
                f"{row['bytes']:,}",
                "" if row["macs"] is None else f"{row['macs']:,}",
                f"{share:.1%}",
            )
        return table

    def _runs(self) -> Table:
        """The layers, neighbours of one kind in one row."""
        table = Table("convolutions", title="in execution order", title_justify="left")
        for column in ("filters", "own", "own parameters", "own multiply-adds"):
            table.add_column(column, justify="right")
        for _, run in groupby(self.layers, lambda share: share.kind):
            shares = list(run)
            first, last = shares[0].layer.path, shares[-1].layer.path
            rows = [share.as_json() for share in shares]
            table.add_row(
                first if len(shares) == 1 else f"{first} to {last} ({len(shares)})",
                *(
                    f"{sum(row[key] for row in rows):,}"
                    for key in ("filters", "own_filters", "own_parameters", "own_macs")
                ),
            )
        return table


def account(
    plan: Ownership, heads: Mapping[str, int], *, bn: BatchNormCount, keep_shared_copy: bool
) -> Account:
    """What `Plan.account` returns, which see."""
    if bn not in _COUNTED:
        raise ValueError(f"bn={bn!r}; choose one of {tuple(_COUNTED)}")
    if not heads:
        raise ValueError("heads={} names no domain; give domain -> number of classes")
    check_names(list(heads))
    check_classes(heads)
    own = sum((_own(plan, share) for share in _shares(plan)), Cost())
    norms = sum((_size(size, name, bn) for name, size in _norm_tensors(plan)), Cost())
    body = sum((_size(s, n, bn) for n, s in plan.tensors.items() if not _in_head(plan, n)), Cost())
    body += Cost(macs=sum(layer.macs for layer in plan.layers) + plan.other_macs)
    head = {domain: _head(plan, classes) for domain, classes in heads.items()}
    kept = own if keep_shared_copy else Cost()
    shared = body - own - norms + Cost(kept.parameters, kept.bytes)
    if plan.shared_head:
        shared += _head(plan, max(heads.values()))
    domains = {d: own + norms + (Cost() if plan.shared_head else head[d]) for d in heads}
    return Account(
        shared=shared,
        domains=domains,
        total=sum(domains.values(), shared),
        independent=sum((body + head[d] for d in heads), Cost()),
        layers=tuple(_shares(plan)),
        summary=str(plan),
    )


def _shares(plan: Ownership) -> Iterator[LayerShare]:
    for layer in plan.layers:
        yield LayerShare(layer, sum(plan.own.get(layer.path, ())))


def _own(plan: Ownership, share: LayerShare) -> Cost:
    layer = share.layer
    tensors = [plan.tensors.get(f"{layer.path}.{name}") for name in ("weight", "bias")]
    row_bytes = sum(t.numel // layer.filters * t.itemsize for t in tensors if t is not None)
    filters = share.own
    return Cost(
        filters * layer.weights_per_filter, filters * row_bytes, filters * layer.macs_per_filter
    )


def _norm_tensors(plan: Ownership) -> Iterator[tuple[str, TensorSize]]:
    norms = set(plan.norms)
    for name, size in plan.tensors.items():
        if name.rpartition(".")[0] in norms:
            yield name, size


def _in_head(plan: Ownership, name: str) -> bool:
    return name.rpartition(".")[0] == plan.head


def _head(plan: Ownership, classes: int) -> Cost:
    layer = plan.classifier
    tensors = [size for name, size in plan.tensors.items() if _in_head(plan, name)]
    row_bytes = sum(t.numel // layer.filters * t.itemsize for t in tensors)
    return Cost(
        classes * layer.weights_per_filter, classes * row_bytes, classes * layer.macs_per_filter
    )


def _size(size: TensorSize, name: str, bn: BatchNormCount) -> Cost:
    counted = not size.buffer or name.rpartition(".")[2] in _COUNTED[bn]
    return Cost(size.numel if counted else 0, size.numel * size.itemsize)


@dataclass(frozen=True)
class Sizes:
    """Payload of a bundle's files in bytes: the tensors, without the files' headers.

    Attributes:
        shared: Of what exists once.
        domains: Domain -> of its delta.
    """

    shared: int
    domains: dict[str, int]

    @property
    def total(self) -> int:
        """Of all files."""
        return self.shared + sum(self.domains.values())
