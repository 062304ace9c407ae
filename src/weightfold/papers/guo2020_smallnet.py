"""ExpandNets' tables of SmallNet with 7 x 7 kernels: 1 (ways), 8 (initial weights), 9 (rates)."""

from weightfold.lab.claims import Claim, above, all_of, below
from weightfold.lab.declare import Experiment, Line, Number, Preset
from weightfold.lab.measures import BEST_ACCURACY, LAST_ACCURACY, PARAMETERS
from weightfold.papers._guo2020 import (
    CIFAR10,
    CIFAR100,
    CPU,
    CPU_DIFFERS,
    FULL,
    KD_NOTE,
    PAPER,
    SAME,
    SMOKE,
    SMOKE_DATA,
    SMOKE_DIFFERS,
    labels_of,
    printed,
)
from weightfold.tasks.distillation import Distillation
from weightfold.train.recipe import RECIPES

SMALLNET = "smallnet_a,kernel_size=7"
TEACHER = "resnet18,small_image=true"
MEASURES = (BEST_ACCURACY, LAST_ACCURACY, PARAMETERS)


def _line(
    label: str, variant: str, cifar10: Number, cifar100: Number, *, teacher: str = ""
) -> Line:
    return Line(
        label,
        SMALLNET,
        variant,
        printed(cifar10, cifar100),
        teacher=teacher,
        distillation=Distillation() if teacher else None,
    )


_TABLE1 = (
    _line("SmallNet", "compact", (78.63, 0.41), (46.63, 0.27)),
    _line("FC", "fc,rate=4", (78.64, 0.39), (46.59, 0.45)),
    _line("ACNet", "acnet", (79.37, 0.52), (47.18, 0.57)),
    _line("ExpandNet-CL", "cl,rate=4,first=m", (78.47, 0.20), (46.90, 0.66)),
    _line("ExpandNet-CL+FC", "cl+fc,rate=4,first=m", (79.11, 0.23), (46.66, 0.43)),
    _line("ExpandNet-CK", "ck,rate=4,first=m", (80.27, 0.24), (48.55, 0.51)),
    _line("ExpandNet-CK+FC", "ck+fc,rate=4,first=m", (80.31, 0.27), (48.62, 0.47)),
    _line("SmallNet, KD", "compact", (78.97, 0.37), (47.04, 0.35), teacher=TEACHER),
    _line(
        "ExpandNet-CL+FC, KD", "cl+fc,rate=4,first=m", (79.60, 0.25), (47.41, 0.51), teacher=TEACHER
    ),
    _line(
        "ExpandNet-CK+FC, KD", "ck+fc,rate=4,first=m", (80.63, 0.31), (49.13, 0.45), teacher=TEACHER
    ),
)
_WITHOUT_KD = labels_of((line.label for line in _TABLE1), but="KD")

TABLE1 = Experiment(
    name="guo2020-table1",
    paper=f"{PAPER}, Table 1",
    title="SmallNet with 7 x 7 kernels against its expansions, r = 4",
    columns=(CIFAR10, CIFAR100),
    measures=MEASURES,
    lines=_TABLE1,
    presets={
        "smoke": Preset({"": SMOKE}, 1, SMOKE_DIFFERS, data=SMOKE_DATA, lines=_WITHOUT_KD),
        "cpu": Preset(
            CPU,
            2,
            f"{CPU_DIFFERS} 2 seeds, not 5. Without the lines with distillation: their teacher "
            "takes days on a CPU.",
            lines=_WITHOUT_KD,
        ),
        "paper": Preset(FULL | {"teacher": RECIPES["teacher-cifar-resnet18"]}, 5, KD_NOTE),
    },
    claims=(
        Claim(
            "Expanding convolutions makes the network more accurate",
            all_of(
                above("ExpandNet-CL", "SmallNet", "best_accuracy"),
                above("ExpandNet-CK", "SmallNet", "best_accuracy"),
            ),
        ),
        Claim(
            "Expanding the fully connected layer as well improves on that",
            all_of(
                above("ExpandNet-CL+FC", "ExpandNet-CL", "best_accuracy"),
                above("ExpandNet-CK+FC", "ExpandNet-CK", "best_accuracy"),
            ),
        ),
        Claim(
            "Expanding kernels is better than ACNet",
            above("ExpandNet-CK", "ACNet", "best_accuracy"),
        ),
        Claim(
            "ExpandNets without distillation are better than SmallNet with it",
            all_of(
                above("ExpandNet-CL+FC", "SmallNet, KD", "best_accuracy"),
                above("ExpandNet-CK+FC", "SmallNet, KD", "best_accuracy"),
            ),
        ),
        Claim(
            "Distillation improves ExpandNets further",
            all_of(
                above("ExpandNet-CL+FC, KD", "ExpandNet-CL+FC", "best_accuracy"),
                above("ExpandNet-CK+FC, KD", "ExpandNet-CK+FC", "best_accuracy"),
            ),
        ),
    ),
    notes=f"{SAME} ACNet's branches for 7 x 7 kernels (1 x 7 and 7 x 1) are our reading: the paper "
    "does not say which form it took.",
)

_STARTS = (
    ("FC", "fc,rate=4", (79.09, 0.56), (46.52, 0.36)),
    ("CL", "cl,rate=4,first=m", (78.65, 0.36), (46.65, 0.47)),
    ("CL+FC", "cl+fc,rate=4,first=m", (78.81, 0.52), (46.43, 0.72)),
    ("CK", "ck,rate=4,first=m", (78.84, 0.30), (46.56, 0.23)),
    ("CK+FC", "ck+fc,rate=4,first=m", (79.27, 0.29), (46.62, 0.29)),
)

TABLE8 = Experiment(
    name="guo2020-table8",
    paper=f"{PAPER}, Table 8",
    title="the compact SmallNet, started from the folded weights of untrained expansions",
    columns=(CIFAR10, CIFAR100),
    measures=MEASURES,
    lines=(
        _line("SmallNet", "compact", (78.63, 0.41), (46.63, 0.27)),
        *(_line(f"SmallNet, {n} start", f"{v},start=folded", a, b) for n, v, a, b in _STARTS),
        _line("ExpandNet-CK+FC", "ck+fc,rate=4,first=m", (80.31, 0.27), (48.62, 0.47)),
    ),
    presets={
        "smoke": Preset({"": SMOKE}, 1, SMOKE_DIFFERS, data=SMOKE_DATA),
        "cpu": Preset(CPU, 2, f"{CPU_DIFFERS} 2 seeds, not 5."),
        "paper": Preset(FULL, 5, "Nothing that is known, but for the ImageNet lines, left out."),
    },
    claims=(
        Claim(
            "The initial weights do not explain it: training the expansion is better than starting "
            "the compact network where the expansion starts",
            all_of(
                *(
                    above("ExpandNet-CK+FC", f"SmallNet, {name} start", "best_accuracy")
                    for name, *_ in _STARTS
                )
            ),
        ),
    ),
    notes=SAME,
)

_RATES = (
    ("0.25", (72.32, 0.62), (39.23, 0.84), (37.91, 43.76)),
    ("0.5", (76.77, 0.36), (43.68, 0.51), (42.81, 48.66)),
    ("0.75", (78.70, 0.42), (46.41, 0.52), (48.43, 54.28)),
    ("1", (79.22, 0.52), (47.25, 0.40), (54.77, 60.62)),
    ("2", (79.97, 0.18), (48.13, 0.42), (87.32, 93.17)),
    ("4", (80.27, 0.24), (48.55, 0.51), (187.0, 192.8)),
)


def _rate_line(
    label: str, variant: str, cifar10: Number, cifar100: Number, counts: tuple[float, float]
) -> Line:
    accuracies, parameters = printed(cifar10, cifar100), printed(*counts, measure="parameters")
    published = {column: accuracies[column] | parameters[column] for column in accuracies}
    return Line(label, SMALLNET, variant, published)


_TABLE9_FEW = ("SmallNet", "CK r=0.25", "CK r=1", "CK r=4")

TABLE9 = Experiment(
    name="guo2020-table9",
    paper=f"{PAPER}, Table 9",
    title="SmallNet with 7 x 7 kernels, its kernels expanded (CK) at rates from 0.25 to 4",
    columns=(CIFAR10, CIFAR100),
    measures=MEASURES,
    lines=(
        *(_rate_line(f"CK r={r}", f"ck,rate={r},first=m", a, b, p) for r, a, b, p in _RATES[:4]),
        _rate_line("SmallNet", "compact", (78.63, 0.41), (46.63, 0.27), (66.19, 72.04)),
        *(_rate_line(f"CK r={r}", f"ck,rate={r},first=m", a, b, p) for r, a, b, p in _RATES[4:]),
    ),
    presets={
        "smoke": Preset({"": SMOKE}, 2, SMOKE_DIFFERS, data=SMOKE_DATA, lines=_TABLE9_FEW),
        "cpu": Preset(
            CPU,
            3,
            f"{CPU_DIFFERS} 3 seeds, not 5; rates 0.25, 1 and 4 only.",
            lines=_TABLE9_FEW,
        ),
        "paper": Preset(FULL, 5, "Nothing that is known."),
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
            above("CK r=1", "SmallNet", "best_accuracy"),
        ),
        Claim(
            "Over-parameterized (r > 1), CK is more accurate than SmallNet",
            all_of(
                above("CK r=2", "SmallNet", "best_accuracy"),
                above("CK r=4", "SmallNet", "best_accuracy"),
            ),
        ),
    ),
    notes=f"{SAME} As in the authors' code, and unlike the paper's text, the image channels of the "
    "first convolution are not expanded; only so are the parameter counts those printed.",
)

EXPERIMENTS = (TABLE1, TABLE8, TABLE9)
