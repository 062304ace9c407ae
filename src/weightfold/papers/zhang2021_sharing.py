"""Tables 1 and 2 and Figures 2, 3 and 4 of the sharing paper, and ablations it has not."""

from dataclasses import replace
from itertools import product

from weightfold.lab.claims import across
from weightfold.lab.domains import Domain
from weightfold.lab.experiment import Axis, Claim
from weightfold.methods.share.presets import PAPER_FILTERS, PAPER_SHARED_NORMS
from weightfold.papers._zhang2021 import (
    NUMBERS,
    PAPER,
    PAPER_MODELS,
    Shared,
    Size,
    fgc,
    published_of,
    sharing_experiment,
)
from weightfold.papers._zhang2021_sizes import cpu, norms, small_decathlon, smoke

BACKBONES = ("MobileNetV2", "ResNet50", "MNasNet", "SqueezeNet")
STRATEGIES = ("top", "random", "bottom", "independent")


def _plan(strategy: str, **options: object) -> str:
    given = {"fraction": 0.2} | options
    return ",".join([strategy, *(f"{key}={value}" for key, value in given.items())])


def _table1_line(backbone: str, strategy: str) -> Shared:
    model, label = PAPER_MODELS[backbone], f"{backbone}, {strategy}"
    published = published_of(NUMBERS.row("Table 1", label))
    if strategy == "independent":
        return Shared(label, backbone, "independent", published)
    paper = f"{strategy},num_filters={PAPER_FILTERS[model][strategy]}"
    if model in PAPER_SHARED_NORMS:
        paper += f",shared_norms={PAPER_SHARED_NORMS[model]}"
    return Shared(label, backbone, _plan(strategy), published, paper_plan=paper)


def _pairs(a: str, b: str, heads: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{head}{a}", f"{head}{b}") for head in heads)


def _claim(text: str, pairs: tuple[tuple[str, str], ...], or_equal: bool = False) -> Claim:
    return Claim(text, across(pairs, "accuracy", or_equal=or_equal))


def _claims(heads: tuple[str, ...], *, independent: bool = True) -> tuple[Claim, ...]:
    """The paper's three orderings at 20%."""
    claims = [
        _claim("bottom is more accurate than top", _pairs("bottom", "top", heads)),
        _claim("bottom is more accurate than random", _pairs("bottom", "random", heads)),
        _claim("random is more accurate than top", _pairs("random", "top", heads)),
    ]
    if independent:
        pairs = _pairs("bottom", "independent", heads)
        claims.append(_claim("bottom is at least as accurate as independent", pairs, True))
    return tuple(claims)


_LINES1 = tuple(_table1_line(b, s) for b, s in product(BACKBONES, STRATEGIES))
_HEADS1 = tuple(f"{backbone}, " for backbone in BACKBONES)
_SMOKE1 = tuple(f"SqueezeNet, {strategy}" for strategy in STRATEGIES)

TABLE1 = sharing_experiment(
    name="zhang2021-table1",
    paper=f"{PAPER}, Table 1",
    title="20% of the filters of four backbones own to each of five domains",
    plans=_LINES1,
    sizes={"smoke": smoke(labels=_SMOKE1), "cpu": cpu(3), "paper": fgc(2)},
    claims=_claims(_HEADS1),
    curves=True,
    notes="The paper's random rows are the mean of two networks, all others of one, it seems. The "
    "parameter column is with 1000-class classifiers, as printed; ours with the domains' own.",
)

_NARROW = ("MobileNetV2", "ResNet50")
_LINES2 = tuple(_table1_line(b, s) for b, s in product(_NARROW, ("bottom", "top")))

FIGURE2 = sharing_experiment(
    name="zhang2021-figure2",
    paper=f"{PAPER}, Figure 2",
    title="accuracy while training, bottom against top, by domain",
    plans=_LINES2,
    sizes={"smoke": smoke(2), "cpu": cpu(3), "paper": fgc()},
    claims=(
        _claim("bottom ends above top", tuple((f"{b}, bottom", f"{b}, top") for b in _NARROW)),
    ),
    curves=True,
    notes="The networks are those of Table 1. The paper prints curves only.",
)


def _table2_line(count: int, strategy: str) -> Shared:
    label = f"{count} domains, {strategy}"
    paper = f"{strategy},num_filters={PAPER_FILTERS['mobilenet_v2'][strategy]}"
    published = published_of(NUMBERS.row("Table 2", label))
    return Shared(label, "MobileNetV2", _plan(strategy), published, domains=count, paper_plan=paper)


_FGC2 = tuple(fgc().domains[i] for i in (0, 2, 1, 3))
"""In the order in which the paper adds them: aircraft, cars, birds, dogs."""
_HEADS2 = tuple(f"{count} domains, " for count in (2, 3, 4))
_CPU2 = tuple(f"{count} domains, {strategy}" for count in (4, 2) for strategy in ("top", "bottom"))

TABLE2 = sharing_experiment(
    name="zhang2021-table2",
    paper=f"{PAPER}, Table 2",
    title="two, three and four domains in MobileNetV2, 20% of the filters own to each",
    plans=tuple(_table2_line(n, s) for n, s in product((2, 3, 4), ("top", "random", "bottom"))),
    sizes={
        "smoke": smoke(4),
        "cpu": small_decathlon(3, labels=_CPU2),
        "paper": replace(fgc(2), domains=_FGC2),
    },
    claims=_claims(_HEADS2, independent=False),
)

SHARES = tuple(range(0, 101, 10))
_CPU_SHARES = (0, 10, 20, 40, 60, 80, 100)
_SHARE_MEASURES = ("accuracy", *(f"accuracy/{d.name}" for d in cpu(1).domains))


def _share_line(strategy: str, percent: int) -> Shared:
    if percent == 100:
        plan, label, series = "independent", "independent", STRATEGIES[:3]
    elif percent == 0:
        plan, label, series = "bottom,fraction=0.0", "0%", STRATEGIES[:3]
    else:
        plan, label = _plan(strategy, fraction=percent / 100), f"{strategy}, {percent}%"
        series = (strategy,)
    return Shared(label, "MobileNetV2", plan, at=percent, series=series)


def _share_labels(percents: tuple[int, ...]) -> tuple[str, ...]:
    lines = (_share_line(s, p) for s, p in product(("top", "random", "bottom"), percents))
    return tuple(dict.fromkeys(line.label for line in lines))


def _at_every_share(a: str, b: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{a}, {p}%", f"{b}, {p}%") for p in SHARES[1:-1])


FIGURE3 = sharing_experiment(
    name="zhang2021-figure3",
    paper=f"{PAPER}, Figure 3",
    title="accuracy against the share of own weights in MobileNetV2",
    plans=tuple(
        {
            line.label: line
            for s, p in product(("top", "random", "bottom"), SHARES)
            for line in [_share_line(s, p)]
        }.values()
    ),
    sizes={
        "smoke": smoke(2, labels=_share_labels((0, 50, 100))),
        "cpu": cpu(2, labels=_share_labels(_CPU_SHARES)),
        "paper": fgc(),
    },
    claims=(
        _claim("bottom is more accurate than top", _at_every_share("bottom", "top")),
        _claim("random is more accurate than top", _at_every_share("random", "top")),
        _claim("bottom is more accurate than random", _at_every_share("bottom", "random")),
        _claim(
            "bottom of more than 20% is at least as accurate as independent",
            tuple((f"bottom, {p}%", "independent") for p in SHARES[3:-1]),
            True,
        ),
    ),
    axis=Axis("own weights (%)", measures=_SHARE_MEASURES),
    notes="0% owns batch norm and classifier only; 100% is one network a domain. The paper prints "
    "the figure only.",
)

_DECATHLON = (
    ("aircraft", 100),
    ("cifar100", 100),
    ("daimlerpedcls", 2),
    ("dtd", 47),
    ("gtsrb", 43),
    ("imagenet12", 1000),
    ("omniglot", 1623),
    ("svhn", 10),
    ("ucf101", 101),
    ("vgg-flowers", 102),
)


def _differing(size: Size, differs: str) -> Size:
    return replace(size, preset=replace(size.preset, differs=differs))


FIGURE4 = sharing_experiment(
    name="zhang2021-figure4",
    paper=f"{PAPER}, Figure 4",
    title="accuracy while training on the Visual Decathlon's domains, bottom against top",
    plans=tuple(
        Shared(strategy, "MobileNetV2", _plan(strategy), paper_plan=f"{strategy},num_filters={n}")
        for strategy, n in PAPER_FILTERS["mobilenet_v2"].items()
        if strategy != "random"
    ),
    sizes={
        "smoke": smoke(3),
        "cpu": small_decathlon(3),
        "paper": _differing(
            replace(
                fgc(),
                domains=tuple(Domain(n, f"decathlon-1.0/{n}", c) for n, c in _DECATHLON),
                sizes={"": 64},
            ),
            "The paper's recipe and image size are not known; ours are those of Table 1 at "
            "64 pixels. Data: the Decathlon's archive as folders decathlon-1.0/<domain>/train and "
            "/test (its test labels are withheld: put its val there).",
        ),
    },
    claims=(_claim("bottom ends above top", (("bottom", "top"),)),),
    curves=True,
    notes="The paper prints curves only, and no Decathlon score.",
)


def _ablations() -> tuple[Shared, ...]:
    macs = (
        Shared(f"equal compute, {s}", "MobileNetV2", _plan(s, budget="macs"))
        for s in ("top", "random", "bottom")
    )
    weights = (
        Shared(f"equal weights, {s}", "MobileNetV2", _plan(s)) for s in ("top", "random", "bottom")
    )
    shared = (
        Shared(f"{what} shared, {s}", "MobileNetV2", _plan(s, **{option: "shared"}))
        for what, option in (("batch norm", "bn"), ("classifier", "head"))
        for s in ("top", "bottom")
    )
    return (*weights, *macs, *shared)


_ABLATIONS = _ablations()

ABLATIONS = sharing_experiment(
    name="zhang2021-ablations",
    paper=f"{PAPER}: ours, except that it says a shared classifier degrades seriously",
    title="equal compute for equal weights; shared batch norm and classifier",
    plans=_ABLATIONS,
    sizes={
        "smoke": smoke(2),
        "cpu": cpu(3),
        "paper": fgc(),
    },
    claims=(
        _claim(
            "equal weights: bottom is more accurate than top",
            _pairs("bottom", "top", ("equal weights, ",)),
        ),
        _claim(
            "equal compute: bottom is more accurate than top",
            _pairs("bottom", "top", ("equal compute, ",)),
        ),
        _claim(
            "equal compute: bottom is more accurate than random",
            _pairs("bottom", "random", ("equal compute, ",)),
        ),
        _claim(
            "own batch norm is more accurate than shared (top and bottom)",
            tuple((f"equal weights, {s}", f"batch norm shared, {s}") for s in ("top", "bottom")),
        ),
        _claim(
            "own classifiers are more accurate than a shared one (top and bottom)",
            tuple((f"equal weights, {s}", f"classifier shared, {s}") for s in ("top", "bottom")),
        ),
    ),
    notes="Equal compute: each domain owns filters with 20% of the convolutions' multiply-adds. A "
    "shared classifier has as many outputs as the domain with most classes needs; the domains' "
    "classes of one number share an output.",
)

_NORMED = ("SqueezeNet", "SqueezeNet, batch norm")

NORMS = sharing_experiment(
    name="zhang2021-norms",
    paper=f"{PAPER}: ours, for its question why SqueezeNet is the exception",
    title="SqueezeNet without and with batch norm",
    plans=tuple(
        Shared(f"{b}, {s}", b, "independent" if s == "independent" else _plan(s))
        for b, s in product(_NORMED, STRATEGIES)
    ),
    sizes={"smoke": smoke(2), "cpu": norms(3), "paper": fgc()},
    claims=tuple(
        claim
        for backbone in _NORMED
        for claim in (
            _claim(
                f"{backbone}: bottom is more accurate than top",
                _pairs("bottom", "top", (f"{backbone}, ",)),
            ),
            _claim(
                f"{backbone}: bottom is at least as accurate as independent",
                _pairs("bottom", "independent", (f"{backbone}, ",)),
                True,
            ),
        )
    ),
    notes="Of the paper's four backbones SqueezeNet alone has no batch norm, and it is the one on "
    "which independent networks are ahead of bottom.",
)

EXPERIMENTS = (TABLE1, TABLE2, FIGURE2, FIGURE3, FIGURE4, ABLATIONS, NORMS)
