"""ExpandNets' Table 7: training with corrupted labels."""

from weightfold.lab.claims import Claim, above, all_of, below
from weightfold.lab.declare import Experiment, Line, Number, Preset
from weightfold.lab.measures import BEST_ERROR, FINAL_TRAIN_ERROR, LAST_ERROR, TRAIN_ERROR
from weightfold.papers._guo2020 import (
    CIFAR10,
    CPU,
    CPU_DIFFERS,
    FULL,
    PAPER,
    SAME,
    SMOKE,
    SMOKE_DATA,
    SMOKE_DIFFERS,
)

_VARIANTS = {
    "SmallNet": "compact",
    "FC": "fc,rate=4",
    "ExpandNet-CL": "cl,rate=4",
    "ExpandNet-CK": "ck,rate=4",
}
_MEASURES = ("best_error", "last_error", "train_error")

# (kernel size, share of random labels) -> a line per variant: best test, last test, train error.
_ERRORS: dict[tuple[int, int], tuple[tuple[Number, Number, Number], ...]] = {
    (5, 20): (
        ((20.90, 0.16), (21.09, 0.20), (32.05, 0.31)),
        ((20.87, 0.29), (21.06, 0.26), (32.04, 0.12)),
        ((20.47, 0.46), (20.62, 0.43), (31.80, 0.23)),
        ((19.42, 0.20), (19.63, 0.17), (31.55, 0.25)),
    ),
    (5, 50): (
        ((25.38, 0.45), (25.68, 0.52), (54.49, 0.41)),
        ((25.36, 0.63), (25.71, 0.77), (54.44, 0.08)),
        ((24.27, 0.33), (24.63, 0.44), (54.29, 0.24)),
        ((22.82, 0.27), (23.00, 0.29), (53.93, 0.23)),
    ),
    (5, 80): (
        ((37.99, 0.64), (39.33, 0.75), (76.14, 0.15)),
        ((38.35, 0.59), (39.61, 0.87), (76.51, 0.15)),
        ((36.75, 0.64), (38.08, 0.50), (76.09, 0.11)),
        ((33.29, 1.04), (34.24, 0.85), (75.77, 0.22)),
    ),
    (9, 20): (
        ((22.56, 0.39), (22.93, 0.18), (29.61, 0.36)),
        ((22.95, 0.39), (23.48, 0.38), (29.83, 0.34)),
        ((22.13, 0.49), (22.73, 0.53), (29.76, 0.19)),
        ((19.32, 0.31), (19.55, 0.30), (31.65, 0.17)),
    ),
    (9, 50): (
        ((28.64, 0.46), (30.44, 0.57), (52.67, 0.45)),
        ((28.46, 0.43), (30.89, 0.38), (52.51, 0.36)),
        ((27.42, 0.35), (29.28, 0.50), (52.67, 0.27)),
        ((22.77, 0.14), (22.99, 0.15), (54.37, 0.12)),
    ),
    (9, 80): (
        ((41.73, 0.58), (47.96, 1.07), (74.01, 0.32)),
        ((42.31, 0.46), (49.36, 1.44), (74.59, 0.35)),
        ((41.44, 0.46), (46.75, 0.49), (74.46, 0.08)),
        ((33.29, 0.58), (33.75, 0.49), (76.27, 0.23)),
    ),
}


def _label(kernel: int, noise: int, name: str) -> str:
    return f"k={kernel}, {noise}%: {name}"


_LINES = tuple(
    Line(
        _label(kernel, noise, name),
        f"smallnet_b,kernel_size={kernel}",
        variant,
        {"cifar10": dict(zip(_MEASURES, numbers, strict=True))},
        options=f"corrupt={noise / 100:g},seed=0",
    )
    for (kernel, noise), block in _ERRORS.items()
    for (name, variant), numbers in zip(_VARIANTS.items(), block, strict=True)
)

_HARDEST = tuple(_label(9, 80, name) for name in ("SmallNet", "ExpandNet-CL", "ExpandNet-CK"))


def _everywhere(name: str, kind: str) -> Claim:
    checks = {"test errors": ("best_error", "last_error"), "training errors": ("train_error",)}
    compare, side = (below, "lower") if kind == "test errors" else (above, "higher")
    return Claim(
        f"{name} has {side} {kind} than SmallNet",
        all_of(
            *(
                compare(_label(k, n, f"ExpandNet-{name}"), _label(k, n, "SmallNet"), measure)
                for k, n in _ERRORS
                for measure in checks[kind]
            )
        ),
    )


TABLE7 = Experiment(
    name="guo2020-table7",
    paper=f"{PAPER}, Table 7",
    title="SmallNet trained with 20, 50 and 80% random labels",
    columns=(CIFAR10,),
    measures=(BEST_ERROR, LAST_ERROR, TRAIN_ERROR, FINAL_TRAIN_ERROR),
    lines=_LINES,
    presets={
        "smoke": Preset({"": SMOKE}, 1, SMOKE_DIFFERS, data=SMOKE_DATA, lines=_HARDEST),
        "cpu": Preset(
            CPU,
            2,
            f"{CPU_DIFFERS} 2 seeds, not 5; 9 x 9 kernels and 80% only, without the FC line.",
            lines=_HARDEST,
        ),
        "paper": Preset(FULL, 5, "Nothing that is known; the expansion rate is our choice."),
    },
    claims=tuple(
        _everywhere(name, kind)
        for name in ("CK", "CL")
        for kind in ("test errors", "training errors")
    ),
    notes=f"{SAME}\n\nThe paper prints neither the expansion rate of this table nor, in our copy, "
    "the first kernel size; ours are 4 and 5. A random label is drawn from all classes, its own "
    "included, as in the code the paper names; the labels are the same ones for every seed. "
    "Training errors count the corrupted labels. Whether the paper's is measured while training "
    "on augmented images, as its code logs it, or afterwards, is not known; it stands beside the "
    "former here, and ours without augmentation follows.",
)

EXPERIMENTS = (TABLE7,)
