"""wf.plan_sharing: which filters, batch norms and classifier each domain owns."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Annotated, Any, Literal, Self, TypedDict, Unpack

from torch import Tensor, nn

from weightfold.core.arguments import check_choices, checked_seed, gathered, real, unwrapped, whole
from weightfold.core.select import Where, select
from weightfold.methods.share.account import Account, BatchNormCount, account
from weightfold.methods.share.filters import (
    Masks,
    Strategy,
    given_masks,
    mask_of,
    ranges_of,
    take_filters,
    take_share,
)
from weightfold.methods.share.layers import Layer, Layers, find_layers
from weightfold.methods.share.ownership import Ownership
from weightfold.records import conform
from weightfold.trace import TensorSize, tensor_sizes


def _plausible(layers: list[dict[str, Any]]) -> str | None:
    """A check of the number of filters, as long as which masks are."""
    filters = [layer["filters"] for layer in layers]
    return None if min(filters, default=0) >= 0 and sum(filters) <= 2**24 else "too many filters"


class PlanRecord(TypedDict):
    """What `Plan.to_json` writes."""

    layers: Annotated[list[Layer], _plausible]
    own: dict[str, list[tuple[int, int]]]
    norms: list[str]
    classifier: Layer
    shared_head: bool
    other_macs: int
    tensors: dict[str, tuple[list[int], str, bool]]
    choice: dict[str, Any]
    fingerprint: str


@dataclass(frozen=True, repr=False)
class Plan(Ownership):
    """What each domain owns of a network, and why. JSON values only.

    Attributes:
        choice: The arguments that made the plan.
    """

    choice: Mapping[str, Any]

    def account(
        self,
        heads: Mapping[str, int],
        *,
        bn: BatchNormCount = "affine",
        keep_shared_copy: bool = False,
    ) -> Account:
        """Parameters, bytes and multiply-adds, shared and per domain, before anything is trained.

        With C the convolutions' parameters, E the own ones among them, B batch norm's and H_d the
        classifier's, K domains hold (C - E) + others + sum over d of (E + B + H_d) parameters.

        Args:
            heads: Domain -> number of classes.
            bn: What of batch norm counts as a parameter: "affine" (weight and bias, as in the
                paper), "stats" (running mean and variance too), "all" (num_batches_tracked too).
                Bytes always hold all of it.
            keep_shared_copy: Also count a backbone copy of the replaced filters, C + K E; the
                paper's parameter column rules that out.

        Raises:
            ValueError: No domain, a number of classes below 1, numbers that differ where the
                classifier is shared, or `bn` is none of its choices.
        """
        return account(self, heads, bn=bn, keep_shared_copy=keep_shared_copy)

    def check(self, model: nn.Module) -> None:
        """Raise unless `model` has the tensors this plan was made for; its classes may differ.

        Raises:
            ValueError: A tensor is absent, unexpected or of another shape; the message names it.
        """
        theirs = tensor_sizes(model)
        mine = {name: self.shape_of(name, size) for name, size in self.tensors.items()}
        given = {name: self.shape_of(name, size) for name, size in theirs.items()}
        wrong = [f"it lacks {name!r}" for name in mine.keys() - given.keys()]
        wrong += [f"it has {name!r} besides" for name in given.keys() - mine.keys()]
        wrong += [
            f"{name!r} has shape {theirs[name].shape}, not {self.tensors[name].shape}"
            for name in mine.keys() & given.keys()
            if mine[name] != given[name]
        ]
        if wrong:
            more = f" and {len(wrong) - 3} more differences" if len(wrong) > 3 else ""
            raise ValueError(
                f"the plan was made for another model than this {type(model).__name__}: "
                f"{'; '.join(sorted(wrong)[:3])}{more}; make one with plan_sharing(model, ...)"
            )

    def to_json(self) -> dict[str, Any]:
        """JSON values; masks as ranges [start, stop) of own filters."""
        return {
            "layers": [asdict(layer) for layer in self.layers],
            "own": {path: ranges_of(mask) for path, mask in self.own.items()},
            "norms": list(self.norms),
            "classifier": asdict(self.classifier),
            "shared_head": self.shared_head,
            "other_macs": self.other_macs,
            "tensors": {n: [list(t.shape), t.dtype, t.buffer] for n, t in self.tensors.items()},
            "choice": dict(self.choice),
            "fingerprint": self.fingerprint,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The plan that `to_json` wrote.

        Raises:
            ValueError: `data` is no such plan, or its fingerprint is not that of its tensors.
        """
        conform(data, PlanRecord, "data is no plan that Plan.to_json wrote")
        try:
            layers = tuple(Layer(**layer) for layer in data["layers"])
            filters = {layer.path: layer.filters for layer in layers}
            plan = cls(
                layers=layers,
                own={path: mask_of(r, filters[path]) for path, r in data["own"].items()},
                norms=tuple(data["norms"]),
                classifier=Layer(**data["classifier"]),
                shared_head=data["shared_head"],
                other_macs=data["other_macs"],
                tensors={
                    n: TensorSize(tuple(shape), dtype, buffer)
                    for n, (shape, dtype, buffer) in data["tensors"].items()
                },
                choice=dict(data["choice"]),
            )
            given = data["fingerprint"]
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"data is no plan that Plan.to_json wrote: {error!r}") from error
        if given != plan.fingerprint:
            raise ValueError(
                f"the plan's fingerprint {given!r} is not that of its tensors, {plan.fingerprint!r}"
            )
        return plan

    def __str__(self) -> str:
        strategy = self.choice["strategy"]
        head = "shared" if self.shared_head else "per domain"
        return (
            f"Plan {strategy}: {self.filters:,} of {sum(x.filters for x in self.layers):,} filters "
            f"in {len(self.own)} of {len(self.layers)} convolutions are a domain's own: "
            f"{self.weights_share:.2%} of their weights, {self.macs_share:.2%} of their "
            f"multiply-adds; {len(self.norms)} batch norms per domain; classifier "
            f"{self.head!r} {head}"
        )

    __repr__ = __str__


@dataclass(frozen=True)
class SharingOptions:
    """What domains own besides filters: options of `plan_sharing` that few calls need.

    Attributes:
        bn: "domain": each domain owns the batch norms, with their running statistics; "shared":
            an ablation.
        shared_norms: Batch norms to leave shared: paths, globs, a predicate, as `where` elsewhere.
            The paper's parameter column needs "*.downsample.1" for ResNet50.
        head: "domain": each domain owns its classifier; "shared": an ablation, for domains of the
            same number of classes.
        head_path: Path of the classifier, where it is not the last Linear or convolution to run
            with as many outputs as the network.
        layers: What `find_layers` saw of the network, so that many plans of one look once; None:
            look.

    Raises:
        TypeError: `head_path` or `layers` is of another type.
        ValueError: An option is none of its choices.
    """

    bn: Literal["domain", "shared"] = "domain"
    shared_norms: Where = None
    head: Literal["domain", "shared"] = "domain"
    head_path: str | None = None
    layers: Layers | None = None

    def __post_init__(self) -> None:
        both = ("domain", "shared")
        check_choices({"bn": self.bn, "head": self.head}, {"bn": both, "head": both})
        if not isinstance(self.head_path, str | None):
            raise TypeError(f"head_path={self.head_path!r}; give the path of a layer")
        if not isinstance(self.layers, Layers | None):
            raise TypeError(f"layers={self.layers!r}; give what find_layers returned")


class SharingKeywords(TypedDict, total=False):
    """`SharingOptions` as keyword arguments of `plan_sharing`."""

    options: SharingOptions
    bn: Literal["domain", "shared"]
    shared_norms: Where
    head: Literal["domain", "shared"]
    head_path: str | None
    layers: Layers | None


def plan_sharing(
    net: nn.Module,
    strategy: Strategy | Masks = "bottom",
    fraction: float | None = None,
    *,
    num_filters: int | None = None,
    budget: Literal["weights", "macs"] = "weights",
    seed: int = 0,
    example_input: Tensor | None = None,
    **options: Unpack[SharingKeywords],
) -> Plan:
    """Plan which filters of `net` each domain owns; the others are shared by all domains.

    Filter-level sharing of Zhang, Yang, Liu, Guan: Rethinking hard-parameter sharing in
    multi-domain learning (section 3). Every domain gets its own copy of the same filters, of the
    batch norms and of the classifier. Nothing is trained or copied here, so plan first:

    >>> import torchvision, weightfold as wf
    >>> plan = wf.plan_sharing(torchvision.models.mobilenet_v2(), "bottom", 0.2)
    >>> f"{plan.filters:,} filters, {plan.weights_share:.1%} of the weights"
    '7,100 filters, 20.0% of the weights'
    >>> costs = plan.account({"aircraft": 100, "birds": 200})  # parameters, bytes, multiply-adds
    >>> f"{costs.total.parameters:,} parameters, {costs.independent.parameters:,} apart"
    '3,080,172 parameters, 4,832,044 apart'

    Filters are walked in the order in which the layers *run* (seen in one run of a copy without
    memory), not in which they are registered, and taken as long as they fit the budget; so the
    budget is never exceeded and missed by less than the next filter of the walk. Convolutions of
    every kind take part: depthwise and grouped (a filter is one output channel, with its kernel
    over the channels of its group), downsample branches, squeeze-excite; a filter brings its bias.
    Convolutions that do not run for the example (auxiliary classifiers), or whose weight is tied to
    something other than a convolution, stay shared and do not count for the budget; and so does all
    that is neither convolution, batch norm nor classifier.

    Args:
        net: A plain network; left unchanged. Its weights do not matter, only their shapes.
        strategy: "bottom" walks from the image on, and the last layer it reaches gives its first
            filters; "top" walks backwards from the classifier, and the last layer it reaches gives
            its last filters (the paper does not say which; so the top plan is the bottom one
            mirrored). "random" walks a uniform permutation of the filters of the whole net, one
            for all domains. Of one seed, plans of growing size are nested. Or path of a
            convolution -> True for each filter a domain owns; layers not named stay shared.
        fraction: Share of the budget, 0 to 1: 0 owns batch norm and classifier only, 1 every
            filter, which is one network per domain. Read as the decimal it is written as.
        num_filters: Number of filters instead of a share; `weightfold.methods.share.presets` has
            those of the paper.
        budget: What `fraction` is a share of: "weights" is the parameters of the convolutions (the
            classifier apart), "macs" their multiply-adds. At equal weights the bottom holds most of
            the compute: 20% of MobileNetV2's weights are 64% of its multiply-adds at the bottom and
            7% at the top.
        seed: Of the "random" permutation.
        example_input: A batch (N, C, ...) as the model takes it, of which the shape of one image
            counts; multiply-adds are for that image. None: (1, C, 224, 224).
        **options: Batch norms and classifier: fields of `SharingOptions`, or one as `options`.

    Returns:
        The plan; `Plan.account` tells what it costs.

    Raises:
        ValueError: A fraction outside 0..1, or positive and too small for one filter; both or
            neither of `fraction` and `num_filters`, or either with masks; masks that name no
            convolution or are of another length; an argument that is none of its choices; no
            classifier found; a model that does not run on the example, has no convolution, or
            computes a convolution's weight by a parametrization; `layers` of another network.
        TypeError: `net` is a Charted net or no module, or an argument is of another type.
    """
    net = unwrapped(net)
    made = gathered(SharingOptions, options)
    _check_arguments(strategy, budget)
    _check_amount(strategy, fraction, num_filters)
    seed = checked_seed(seed)
    tensors = tensor_sizes(net)
    if (seen := made.layers) is None:
        seen = find_layers(net, example_input, made.head_path)
    else:
        _check_layers(seen, tensors)
    if not isinstance(strategy, str):
        own = given_masks(seen.convolutions, strategy)
    elif num_filters is not None:
        own = take_filters(seen.convolutions, strategy, seed, num_filters)
    else:
        own = take_share(seen.convolutions, strategy, seed, float(fraction or 0), budget)
    norms = _domain_norms(net, seen.norms, made)
    return Plan(
        layers=seen.convolutions,
        own=own,
        norms=norms,
        classifier=seen.classifier,
        shared_head=made.head == "shared",
        other_macs=seen.other_macs,
        tensors=tensors,
        choice={
            "strategy": strategy if isinstance(strategy, str) else "masks",
            "fraction": fraction,
            "num_filters": num_filters,
            "budget": budget,
            "seed": seed if strategy == "random" else None,
            "bn": made.bn,
            "shared_norms": [path for path in seen.norms if path not in norms],
            "head": made.head,
            "input_size": list(seen.input_size),
        },
    )


def _check_arguments(strategy: Any, budget: Any) -> None:
    check_choices({"budget": budget}, {"budget": ("weights", "macs")})
    if not isinstance(strategy, Mapping) and strategy not in (known := ("bottom", "top", "random")):
        raise ValueError(f"strategy={strategy!r}; choose one of {known}, or a mask per layer")


def _check_amount(
    strategy: Strategy | Masks, fraction: float | None, num_filters: int | None
) -> None:
    given = f"fraction={fraction} and num_filters={num_filters}"
    if not isinstance(strategy, str):
        if fraction is not None or num_filters is not None:
            raise ValueError(f"masks say which filters are own; leave out {given}")
    elif (fraction is None) == (num_filters is None):
        raise ValueError(f"{given}; give one of them, e.g. fraction=0.2")
    if num_filters is not None:
        whole(num_filters, "num_filters")
    if fraction is not None and not 0 <= real(fraction, "fraction") <= 1:
        raise ValueError(f"fraction={fraction}; a share is between 0 and 1, e.g. 0.2 for 20%")


def _check_layers(seen: Layers, tensors: Mapping[str, TensorSize]) -> None:
    for layer in (*seen.convolutions, seen.classifier):
        weight = tensors.get(f"{layer.path}.weight")
        if weight is None or weight.shape[0] != layer.filters:
            raise ValueError(
                f"layers: the network has no {layer.path!r} of {layer.filters} filters; give what "
                "find_layers saw of this one"
            )


def _domain_norms(
    net: nn.Module, norms: tuple[str, ...], options: SharingOptions
) -> tuple[str, ...]:
    if options.bn == "shared":
        if options.shared_norms is not None:
            raise ValueError("bn='shared' shares every batch norm; leave out shared_norms")
        return ()
    if options.shared_norms is None:
        return norms
    candidates = {path: net.get_submodule(path) for path in norms}
    shared = select(candidates, options.shared_norms, what="batch norm")
    return tuple(path for path in norms if path not in shared)
