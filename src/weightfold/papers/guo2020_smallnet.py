"""ExpandNets' tables of SmallNet with 7 x 7 kernels: 1 (ways), 8 (initial weights), 9 (rates)."""

from weightfold.lab.claims import all_of, below
from weightfold.lab.experiment import Axis, Claim, Line, Preset
from weightfold.papers._guo2020 import (
    CPU,
    CPU_DIFFERS,
    FULL,
    KD_NOTE,
    NUMBERS,
    SAME,
    SHORT,
    SHORT_DIFFERS,
    SHORT_OPTIONS,
    SHORT_TEACHER,
    SHORT_TEST,
    SMOKE,
    SMOKE_DATA,
    SMOKE_DIFFERS,
    Network,
    Size,
    beside,
    better,
    cifar_table,
    decayed,
    lines_of,
)
from weightfold.train.recipe import RECIPES

SMALLNET = "smallnet_a,kernel_size=7"
TEACHER = "resnet18,small_image=true"

SIZES = {"smoke": Size({"": SMOKE}, SMOKE_DATA), "cpu": Size(CPU), "paper": Size(FULL)}
_MANY = SIZES | {
    "cpu": Size(SHORT, options=SHORT_OPTIONS, test_limit=SHORT_TEST, teacher=SHORT_TEACHER)
}
"""Of the tables with many lines."""


def _network(table: str, label: str, variant: str, teacher: str = "") -> Network:
    published = beside(table, label, {"best_accuracy": "{}"})
    return Network(label, SMALLNET, variant, *published, teacher=teacher)


_WAYS = {
    "SmallNet": "compact",
    "FC": "fc,rate=4",
    "ACNet": "acnet",
    "ExpandNet-CL": "cl,rate=4,first=m",
    "ExpandNet-CL+FC": "cl+fc,rate=4,first=m",
    "ExpandNet-CK": "ck,rate=4,first=m",
    "ExpandNet-CK+FC": "ck+fc,rate=4,first=m",
}
_TAUGHT = ("SmallNet", "ExpandNet-CL+FC", "ExpandNet-CK+FC")
_BESIDE = (
    Network("DO-Conv", SMALLNET, "doconv"),
    Network("SmallNet, decay", SMALLNET, "compact", recipe="decay"),
    Network("ExpandNet-CK, decay of the product", SMALLNET, _WAYS["ExpandNet-CK"], recipe="decay"),
)
"""Neighbours, not in the paper: another over-parameterization, and weight decay."""

_TRANSFER = "not built; its numbers stand in the paper's supplement, which is not at hand"

TABLE1 = cifar_table(
    "table1",
    source=", Table 1",
    title="SmallNet with 7 x 7 kernels against its expansions, r = 4",
    lines=(
        *lines_of(
            (
                *(_network("Table 1", label, variant) for label, variant in _WAYS.items()),
                *(_network("Table 1", f"{x}, KD", _WAYS[x], TEACHER) for x in _TAUGHT),
                *_BESIDE,
            ),
            _MANY
            | {
                "paper": Size(
                    FULL
                    | {
                        "teacher": RECIPES["teacher-cifar-resnet18"],
                        "decay": decayed(RECIPES["expandnets-cifar"]),
                    }
                )
            },
        ),
        *(Line(f"SmallNet, {way}", not_run=_TRANSFER) for way in ("Hint", "PKT")),
    ),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS, data=SMOKE_DATA),
        "cpu": Preset(
            3,
            f"{SHORT_DIFFERS} The teacher of the lines with distillation is one ResNet-8 of width "
            "12, trained in 10 epochs on the same images, where the paper's is a ResNet-18.",
            data="cifar10",
        ),
        "paper": Preset(5, KD_NOTE, data="cifar10"),
    },
    claims=(
        Claim(
            "Expanding convolutions makes the network more accurate",
            better(("ExpandNet-CL", "SmallNet"), ("ExpandNet-CK", "SmallNet")),
        ),
        Claim(
            "Expanding the fully connected layer as well improves on that",
            better(("ExpandNet-CL+FC", "ExpandNet-CL"), ("ExpandNet-CK+FC", "ExpandNet-CK")),
        ),
        Claim(
            "Expanding kernels is better than ACNet",
            better(("ExpandNet-CK", "ACNet")),
        ),
        Claim(
            "ExpandNets without distillation are better than SmallNet with it",
            better(("ExpandNet-CL+FC", "SmallNet, KD"), ("ExpandNet-CK+FC", "SmallNet, KD")),
        ),
        Claim(
            "Distillation improves ExpandNets further",
            better(
                ("ExpandNet-CL+FC, KD", "ExpandNet-CL+FC"),
                ("ExpandNet-CK+FC, KD", "ExpandNet-CK+FC"),
            ),
        ),
        Claim(
            "Not the paper's: ExpandNet-CK is more accurate than DO-Conv",
            better(("ExpandNet-CK", "DO-Conv")),
        ),
        Claim(
            "Not the paper's: with the same weight decay of the deployed weights ExpandNet-CK is "
            "still more accurate than SmallNet",
            better(("ExpandNet-CK, decay of the product", "SmallNet, decay")),
        ),
    ),
    notes=f"{SAME} ACNet's branches for 7 x 7 kernels (1 x 7 and 7 x 1) are our reading: the paper "
    "does not say which form it took. DO-Conv (Cao et al. 2020) and the lines with weight decay "
    "are not in the paper, which has none: decay 5e-4 on the deployed weights, the product of an "
    "expansion's factors, which factorized layers (Khodak et al. 2021) credit with their gain.",
)

_CKFC = "ck+fc,rate=4,first=m"
_STARTS = {
    "FC": "fc,rate=4",
    "CL": "cl,rate=4,first=m",
    "CL+FC": "cl+fc,rate=4,first=m",
    "CK": "ck,rate=4,first=m",
    "CK+FC": _CKFC,
}
_TWIN = "ExpandNet-CK+FC, nonlinear twin's start"

TABLE8 = cifar_table(
    "table8",
    source=", Table 8",
    title="the compact SmallNet, started from the folded weights of untrained expansions",
    lines=lines_of(
        (
            _network("Table 8", "SmallNet", "compact"),
            *(
                _network("Table 8", f"SmallNet, {name} start", f"{variant},start=folded")
                for name, variant in _STARTS.items()
            ),
            _network("Table 8", "ExpandNet-CK+FC", _CKFC),
            Network(_TWIN, SMALLNET, _CKFC, twin=f"{_CKFC},nonlinear=true"),
        ),
        _MANY,
    ),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS, data=SMOKE_DATA),
        "cpu": Preset(
            3,
            f"{SHORT_DIFFERS} Of the five starts only that of CK+FC.",
            data="cifar10",
            lines=("SmallNet", "SmallNet, CK+FC start", "ExpandNet-CK+FC", _TWIN),
        ),
        "paper": Preset(
            5, "Nothing that is known, but for the ImageNet lines, left out.", data="cifar10"
        ),
    },
    claims=(
        Claim(
            "The initial weights do not explain it: training the expansion is better than starting "
            "the compact network where the expansion starts",
            better(*(("ExpandNet-CK+FC", f"SmallNet, {name} start") for name in _STARTS)),
        ),
        Claim(
            "Started from its trained nonlinear twin, the expansion is more accurate",
            better((_TWIN, "ExpandNet-CK+FC")),
        ),
    ),
    notes=f"{SAME} The line of the nonlinear twin is not of Table 8: the paper says of it, without "
    "a number in its main part, that it helps. Its schedule is not known; here the twin is trained "
    "by the whole recipe and the expansion after it by the whole recipe again, which is twice the "
    "training of the other lines.",
)


def _rate(label: str, rate: str = "") -> Network:
    """The expansion at a rate, or the compact network."""
    published = beside("Table 9", label, {"best_accuracy": "{}", "parameters": "parameters, {}"})
    variant = f"ck,rate={rate},first=m" if rate else "compact"
    return Network(label, SMALLNET, variant, *published, at=float(rate) if rate else None)


_TABLE9_FEW = ("SmallNet", "CK r=0.25", "CK r=1", "CK r=4")

TABLE9 = cifar_table(
    "table9",
    source=", Table 9",
    title="SmallNet with 7 x 7 kernels, its kernels expanded (CK) at rates from 0.25 to 4",
    lines=lines_of(
        (
            *(_rate(f"CK r={rate}", rate) for rate in ("0.25", "0.5", "0.75", "1")),
            _rate("SmallNet"),
            *(_rate(f"CK r={rate}", rate) for rate in ("2", "4")),
        ),
        SIZES,
    ),
    axis=Axis("expansion rate", log=True),
    presets={
        "smoke": Preset(2, SMOKE_DIFFERS, data=SMOKE_DATA, lines=_TABLE9_FEW),
        "cpu": Preset(
            3,
            f"{CPU_DIFFERS} 3 seeds, not 5; rates 0.25, 1 and 4 only.",
            data="cifar10",
            lines=_TABLE9_FEW,
        ),
        "paper": Preset(5, "Nothing that is known.", data="cifar10"),
    },
    claims=(
        Claim(
            "Without over-parameterization (r < 1) accuracy falls with the number of parameters",
            all_of(
                below("CK r=0.25", "SmallNet", "best_accuracy"),
                below("CK r=0.25", "CK r=0.5", "best_accuracy"),
                below("CK r=0.5", "CK r=0.75", "best_accuracy"),
            ),
        ),
        Claim(
            "At r = 1, with fewer parameters than SmallNet, CK is more accurate",
            better(("CK r=1", "SmallNet")),
        ),
        Claim(
            "Over-parameterized (r > 1), CK is more accurate than SmallNet",
            better(("CK r=2", "SmallNet"), ("CK r=4", "SmallNet")),
        ),
    ),
    notes=f"{SAME} As in the authors' code, and unlike the paper's text, the image channels of the "
    "first convolution are not expanded; only so are the parameter counts those printed.",
)

_README = "the authors' README, k = 3"

SMALL_KERNELS = cifar_table(
    "k3",
    source=f": {_README}",
    title="SmallNet with 3 x 3 kernels against its expansions, r = 4",
    lines=lines_of(
        [
            Network(
                label,
                "smallnet_a,kernel_size=3",
                _WAYS[label],
                *beside(_README, label, {"best_accuracy": "{}"}),
            )
            for label in NUMBERS.rows(_README)
        ],
        _MANY,
    ),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS, data=SMOKE_DATA),
        "cpu": Preset(3, SHORT_DIFFERS, data="cifar10"),
        "paper": Preset(5, "Nothing that is known.", data="cifar10"),
    },
    claims=(
        Claim(
            "Expanding convolutions makes the network more accurate",
            better(("ExpandNet-CL", "SmallNet")),
        ),
    ),
    notes=f"{SAME} The paper has no numbers of this network, its code has.",
)

EXPERIMENTS = (TABLE1, TABLE8, TABLE9, SMALL_KERNELS)
