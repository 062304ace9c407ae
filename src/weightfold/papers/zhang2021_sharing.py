"""Tables 1 and 2 and Figures 2, 3 and 4 of the sharing paper, and ablations it has not."""

from dataclasses import replace
from itertools import product

from weightfold.lab.domains_cell import Domain
from weightfold.lab.domains_declare import Counted, DomainsExperiment, Plan
from weightfold.methods.share.presets import PAPER_FILTERS, PAPER_PARAMETERS, PAPER_SHARED_NORMS
from weightfold.papers._zhang2021 import (
    FGC,
    MORE_DOMAINS,
    PAPER,
    PAPER_MODELS,
    cpu,
    fgc,
    smoke,
)

BACKBONES = ("MobileNetV2", "ResNet50", "MNasNet", "SqueezeNet")
STRATEGIES = ("top", "random", "bottom", "independent")

_TABLE1 = {
    "MobileNetV2": (
        (0.8536, 0.6714, 0.8145, 0.6006, 0.5985),
        (0.8617, 0.6699, 0.8259, 0.6021, 0.6013),
        (0.8782, 0.6920, 0.8506, 0.6186, 0.6119),
        (0.8749, 0.6920, 0.8496, 0.6202, 0.6074),
    ),
    "ResNet50": (
        (0.8464, 0.6243, 0.7887, 0.5625, 0.5530),
        (0.8650, 0.6740, 0.8218, 0.6211, 0.6037),
        (0.8657, 0.6925, 0.8363, 0.6128, 0.6067),
        (0.8680, 0.6799, 0.8419, 0.6248, 0.6037),
    ),
    "MNasNet": (
        (0.8422, 0.6369, 0.7747, 0.5880, 0.6104),
        (0.8482, 0.6634, 0.7946, 0.6080, 0.6082),
        (0.8596, 0.6740, 0.8081, 0.6212, 0.6164),
        (0.8668, 0.6660, 0.8174, 0.6177, 0.6037),
    ),
    "SqueezeNet": (
        (0.7555, 0.5666, 0.6423, 0.5034, 0.5000),
        (0.7702, 0.5817, 0.6743, 0.5293, 0.5119),
        (0.7705, 0.5733, 0.6764, 0.5218, 0.5131),
        (0.7819, 0.6018, 0.7016, 0.5427, 0.5321),
    ),
}
_TABLE2 = {
    2: ((0.8719, 0.8390), (0.8762, 0.8387), (0.8767, 0.8460)),
    3: ((0.8548, 0.6655, 0.8336), (0.8687, 0.6716, 0.8357), (0.8677, 0.6786, 0.8474)),
    4: (
        (0.8629, 0.6723, 0.8256, 0.5948),
        (0.8683, 0.6902, 0.8318, 0.6118),
        (0.8713, 0.6917, 0.8423, 0.6186),
    ),
}
_TABLE2_DOMAINS = {
    2: ("aircraft", "cars"),
    3: ("aircraft", "birds", "cars"),
    4: ("aircraft", "birds", "cars", "dogs"),
}


def _plan(strategy: str, **options: object) -> str:
    given = {"fraction": 0.2} | options
    return ",".join([strategy, *(f"{key}={value}" for key, value in given.items())])


def _table1_line(backbone: str, strategy: str) -> Plan:
    model = PAPER_MODELS[backbone]
    published = dict(zip(FGC, _TABLE1[backbone][STRATEGIES.index(strategy)], strict=True))
    printed = PAPER_PARAMETERS[model][strategy]
    label = f"{backbone}, {strategy}"
    if strategy == "independent":
        return Plan(label, backbone, "independent", published, printed)
    paper = f"{strategy},num_filters={PAPER_FILTERS[model][strategy]}"
    if model in PAPER_SHARED_NORMS:
        paper += f",shared_norms={PAPER_SHARED_NORMS[model]}"
    return Plan(label, backbone, _plan(strategy), published, printed, paper_plan=paper)


def _pairs(a: str, b: str, heads: tuple[str, ...]) -> tuple[tuple[str, str], ...]:
    return tuple((f"{head}{a}", f"{head}{b}") for head in heads)


def _claims(heads: tuple[str, ...], *, independent: bool = True) -> tuple[Counted, ...]:
    """The paper's three orderings at 20%."""
    claims = [
        Counted("bottom is more accurate than top", _pairs("bottom", "top", heads)),
        Counted("bottom is more accurate than random", _pairs("bottom", "random", heads)),
        Counted("random is more accurate than top", _pairs("random", "top", heads)),
    ]
    if independent:
        pairs = _pairs("bottom", "independent", heads)
        claims.append(Counted("bottom is at least as accurate as independent", pairs, True))
    return tuple(claims)


_LINES1 = tuple(_table1_line(b, s) for b, s in product(BACKBONES, STRATEGIES))
_HEADS1 = tuple(f"{backbone}, " for backbone in BACKBONES)
_SMOKE1 = tuple(f"SqueezeNet, {strategy}" for strategy in STRATEGIES)

TABLE1 = DomainsExperiment(
    name="zhang2021-table1",
    paper=f"{PAPER}, Table 1",
    title="20% of the filters of four backbones own to each of five domains",
    lines=_LINES1,
    presets={"smoke": smoke(labels=_SMOKE1), "cpu": cpu(3), "paper": fgc(2)},
    claims=_claims(_HEADS1),
    figures=("curves",),
    notes="The paper's random rows are the mean of two networks, all others of one, it seems. The "
    "parameter column is with 1000-class classifiers, as printed; ours with the domains' own.",
)

_NARROW = ("MobileNetV2", "ResNet50")
_LINES2 = tuple(_table1_line(b, s) for b, s in product(_NARROW, ("bottom", "top")))

FIGURE2 = DomainsExperiment(
    name="zhang2021-figure2",
    paper=f"{PAPER}, Figure 2",
    title="accuracy while training, bottom against top, by domain",
    lines=_LINES2,
    presets={"smoke": smoke(2), "cpu": cpu(3), "paper": fgc()},
    claims=(
        Counted("bottom ends above top", tuple((f"{b}, bottom", f"{b}, top") for b in _NARROW)),
    ),
    figures=("curves",),
    notes="The networks are those of Table 1. The paper prints curves only.",
)


def _table2_line(count: int, strategy: str) -> Plan:
    accuracies = _TABLE2[count][("top", "random", "bottom").index(strategy)]
    published = dict(zip(_TABLE2_DOMAINS[count], accuracies, strict=True))
    paper = f"{strategy},num_filters={PAPER_FILTERS['mobilenet_v2'][strategy]}"
    return Plan(
        f"{count} domains, {strategy}",
        "MobileNetV2",
        _plan(strategy),
        published,
        domains=count,
        paper_plan=paper,
    )


_FGC2 = tuple(fgc().domains[i] for i in (0, 2, 1, 3))
"""In the order in which the paper adds them: aircraft, cars, birds, dogs."""
_HEADS2 = tuple(f"{count} domains, " for count in (2, 3, 4))

TABLE2 = DomainsExperiment(
    name="zhang2021-table2",
    paper=f"{PAPER}, Table 2",
    title="two, three and four domains in MobileNetV2, 20% of the filters own to each",
    lines=tuple(_table2_line(n, s) for n, s in product((2, 3, 4), ("top", "random", "bottom"))),
    presets={"smoke": smoke(4), "cpu": cpu(3), "paper": replace(fgc(2), domains=_FGC2)},
    claims=_claims(_HEADS2, independent=False),
)

SHARES = tuple(range(0, 101, 10))
_CPU_SHARES = (0, 10, 20, 40, 60, 80, 100)


def _share_line(strategy: str, percent: int) -> Plan:
    if percent == 100:
        return Plan("independent", "MobileNetV2", "independent")
    if percent == 0:
        return Plan("0%", "MobileNetV2", "bottom,fraction=0.0")
    return Plan(f"{strategy}, {percent}%", "MobileNetV2", _plan(strategy, fraction=percent / 100))


def _share_labels(percents: tuple[int, ...]) -> tuple[str, ...]:
    lines = (_share_line(s, p) for s, p in product(("top", "random", "bottom"), percents))
    return tuple(dict.fromkeys(line.label for line in lines))


def _at_every_share(a: str, b: str) -> tuple[tuple[str, str], ...]:
    return tuple((f"{a}, {p}%", f"{b}, {p}%") for p in SHARES[1:-1])


FIGURE3 = DomainsExperiment(
    name="zhang2021-figure3",
    paper=f"{PAPER}, Figure 3",
    title="accuracy against the share of own weights in MobileNetV2",
    lines=tuple(
        {
            line.label: line
            for s, p in product(("top", "random", "bottom"), SHARES)
            for line in [_share_line(s, p)]
        }.values()
    ),
    presets={
        "smoke": smoke(2, labels=_share_labels((0, 50, 100))),
        "cpu": cpu(2, labels=_share_labels(_CPU_SHARES)),
        "paper": fgc(),
    },
    claims=(
        Counted("bottom is more accurate than top", _at_every_share("bottom", "top")),
        Counted("random is more accurate than top", _at_every_share("random", "top")),
        Counted("bottom is more accurate than random", _at_every_share("bottom", "random")),
        Counted(
            "bottom of more than 20% is at least as accurate as independent",
            tuple((f"bottom, {p}%", "independent") for p in SHARES[3:-1]),
            True,
        ),
    ),
    figures=("share",),
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

FIGURE4 = DomainsExperiment(
    name="zhang2021-figure4",
    paper=f"{PAPER}, Figure 4",
    title="accuracy while training on the Visual Decathlon's domains, bottom against top",
    lines=tuple(
        Plan(strategy, "MobileNetV2", _plan(strategy), paper_plan=f"{strategy},num_filters={n}")
        for strategy, n in PAPER_FILTERS["mobilenet_v2"].items()
        if strategy != "random"
    ),
    presets={
        "smoke": smoke(3),
        "cpu": replace(
            cpu(2, domains=MORE_DOMAINS),
            differs="Eight domains in place of the Decathlon's ten: CIFAR-10, GTSRB, "
            "Fashion-MNIST, KMNIST, USPS, MNIST, scikit-learn's digits and 659 characters of "
            "Omniglot. " + cpu(2).differs.partition("so the accuracies")[2].lstrip(),
        ),
        "paper": replace(
            fgc(),
            domains=tuple(Domain(n, f"decathlon-1.0/{n}", c) for n, c in _DECATHLON),
            sizes={"": 64},
            differs="The paper's recipe and image size are not known; ours are those of Table 1 at "
            "64 pixels. Data: the Decathlon's archive as folders decathlon-1.0/<domain>/train and "
            "/test (its test labels are withheld: put its val there).",
        ),
    },
    claims=(Counted("bottom ends above top", (("bottom", "top"),)),),
    figures=("curves",),
    notes="The paper prints curves only, and no Decathlon score.",
)


def _ablations() -> tuple[Plan, ...]:
    macs = (
        Plan(f"equal compute, {s}", "MobileNetV2", _plan(s, budget="macs"))
        for s in ("top", "random", "bottom")
    )
    weights = (
        Plan(f"equal weights, {s}", "MobileNetV2", _plan(s)) for s in ("top", "random", "bottom")
    )
    shared = (
        Plan(f"{what} shared, {s}", "MobileNetV2", _plan(s, **{option: "shared"}))
        for what, option in (("batch norm", "bn"), ("classifier", "head"))
        for s in ("top", "bottom")
    )
    norms = (
        Plan(f"{b}, {s}", b, "independent" if s == "independent" else _plan(s))
        for b in ("SqueezeNet", "SqueezeNet, batch norm")
        for s in STRATEGIES
    )
    return (*weights, *macs, *shared, *norms)


_ABLATIONS = _ablations()

ABLATIONS = DomainsExperiment(
    name="zhang2021-ablations",
    paper=f"{PAPER}: ours, except that it says a shared classifier degrades seriously",
    title="equal compute for equal weights; SqueezeNet with batch norm; shared norm and classifier",
    lines=_ABLATIONS,
    presets={
        "smoke": smoke(2),
        "cpu": cpu(3),
        "paper": fgc(),
    },
    claims=(
        Counted(
            "equal weights: bottom is more accurate than top",
            _pairs("bottom", "top", ("equal weights, ",)),
        ),
        Counted(
            "equal compute: bottom is more accurate than top",
            _pairs("bottom", "top", ("equal compute, ",)),
        ),
        Counted(
            "equal compute: bottom is more accurate than random",
            _pairs("bottom", "random", ("equal compute, ",)),
        ),
        Counted(
            "SqueezeNet: bottom is at least as accurate as independent",
            _pairs("bottom", "independent", ("SqueezeNet, ",)),
            True,
        ),
        Counted(
            "SqueezeNet with batch norm: bottom is at least as accurate as independent",
            _pairs("bottom", "independent", ("SqueezeNet, batch norm, ",)),
            True,
        ),
        Counted(
            "own batch norm is more accurate than shared (top and bottom)",
            tuple((f"equal weights, {s}", f"batch norm shared, {s}") for s in ("top", "bottom")),
        ),
        Counted(
            "own classifiers are more accurate than a shared one (top and bottom)",
            tuple((f"equal weights, {s}", f"classifier shared, {s}") for s in ("top", "bottom")),
        ),
    ),
    notes="Equal compute: each domain owns filters with 20% of the convolutions' multiply-adds. A "
    "shared classifier has as many outputs as the domain with most classes needs; the domains' "
    "classes of one number share an output.",
)

EXPERIMENTS = (TABLE1, TABLE2, FIGURE2, FIGURE3, FIGURE4, ABLATIONS)
