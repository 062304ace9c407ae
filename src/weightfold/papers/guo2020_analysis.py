"""ExpandNets' Figures 3 and 4: gradient confusion while training, and loss landscapes."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from weightfold.lab.claims import all_of, lower
from weightfold.lab.experiment import Claim, Estimate, Experiment, Figure, Line, Preset, Quantity
from weightfold.lab.measures import by_probe
from weightfold.lab.probing import calling
from weightfold.lab.results import Results
from weightfold.papers._guo2020 import CPU_DIFFERS, PAPER, SMOKE, SMOKE_DATA, SMOKE_DIFFERS
from weightfold.report.statistics import paired
from weightfold.train.recipe import RECIPES

CPU, FULL = RECIPES["expandnets-cifar-12"], RECIPES["expandnets-cifar"]
CPU_DATA, CPU_TEST = "cifar10,limit=2000", 1000
NAMES = {"SmallNet": "compact", "FC": "fc", "ExpandNet-CL": "cl", "ExpandNet-CK": "ck"}
COMPACT, EXPANDED = "SmallNet", ("ExpandNet-CL", "ExpandNet-CK")
REACH = 0.5
"""How far from the network its landscape is averaged: half as far as the weights are long."""


def _confusion(name: str) -> Line:
    def call(kernel: int, data: str, recipe: Any, **options: Any) -> Any:
        model = f"smallnet_b,kernel_size={kernel}"
        return calling("confusion", model, data, recipe=recipe, variant=NAMES[name], **options)

    return Line(
        name,
        {
            "smoke": call(3, SMOKE_DATA, SMOKE, batch_size=32, test_limit=50),
            "cpu": call(7, CPU_DATA, CPU, test_limit=CPU_TEST),
            "paper": call(7, "cifar10", FULL, batches=200),
        },
    )


def _by_space(space: str, of: str) -> Callable[[Any], dict[int, float]]:
    """Seed -> the negative of a cosine, which is confusion."""

    def values(found: Any) -> dict[int, float]:
        known = space if space in found.spaces else "theta"
        seeds = [run.seed for run in found.runs]
        return dict(zip(seeds, [-v for v in getattr(found, of)(known)], strict=True))

    return values


def _cosine(key: str, title: str, space: str, of: str) -> Quantity:
    def over(records: Sequence[Any]) -> Estimate | None:
        if space not in records[0].spaces:
            return None
        values = getattr(records[0], of)(space)
        return Estimate.of(paired(values, [0.0] * len(values)))

    return Quantity(key, title, over=by_probe({"confusion": over}), digits=3)


def _errors(found: Any) -> dict[int, float]:
    return {run.seed: run.test[-1] for run in found.runs}


def _error(records: Sequence[Any]) -> Estimate:
    values = list(_errors(records[0]).values())
    return Estimate.of(paired(values, [0.0] * len(values)))


def _less_confused(space: str) -> Any:
    return all_of(
        *(
            lower(name, COMPACT, _by_space(space, of), f"confusion, {when}")
            for name in EXPANDED
            for of, when in (("minimum", "last epoch"), ("mean", "mean over epochs"))
        )
    )


def _draw_confusion(results: Results, path: Path) -> bool:
    from weightfold.probes.confusion.finding import draw_confusion

    found = {name: records[0] for name in NAMES if (records := results.records(name))}
    if found:
        draw_confusion(found, path)
    return bool(found)


FIGURE3 = Experiment(
    name="guo2020-figure3",
    paper=f"{PAPER}, Figure 3",
    title="gradient confusion while training, kernel 7",
    measures=(
        Quantity("error", "test error, last epoch (%)", over=by_probe({"confusion": _error})),
        _cosine("folded", "smallest cosine, folded space, last epoch", "theta", "minimum"),
        _cosine("folded_mean", "the same, mean over epochs", "theta", "mean"),
        _cosine("factors", "smallest cosine, factor space, last epoch", "psi", "minimum"),
        _cosine("factors_mean", "the same, mean over epochs", "psi", "mean"),
    ),
    lines=tuple(map(_confusion, NAMES)),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS),
        "cpu": Preset(3, f"{CPU_DIFFERS} {CPU_DATA}, {CPU_TEST:,} test images, 3 seeds, not 5."),
        "paper": Preset(5, "Mini-batches of 128, not augmented, batch norm by the batch: ours."),
    },
    claims=(
        Claim(
            "CL and CK have lower gradient confusion than the compact network (in factor space, as "
            "the paper measures it).",
            _less_confused("psi"),
        ),
        Claim("Ours: also in folded space.", _less_confused("theta")),
        Claim(
            "CL and CK have fewer test errors.",
            all_of(*(lower(n, COMPACT, _errors, "test error (points)") for n in EXPANDED)),
        ),
    ),
    notes="The paper prints curves, no numbers. It does not say in which coordinates, on which "
    "mini-batches or with which batch norm gradients are compared; factor space is our reading.",
    figures=(Figure("confusion", "Figure 3", _draw_confusion),),
)


def _landscape(name: str, coordinates: str) -> Line:
    def call(kernel: int, data: str, recipe: Any, **options: Any) -> Any:
        return calling(
            "landscape",
            f"smallnet_b,kernel_size={kernel}",
            data,
            recipe=recipe,
            variant=NAMES[name],
            bn="recalibrate",
            train=True,
            coordinates=coordinates,
            **options,
        )

    where = "" if name == COMPACT else (", folded" if coordinates == "theta" else ", factors")
    return Line(
        name + where,
        {
            "smoke": call(
                3, SMOKE_DATA, SMOKE, along=("random",), points=3, examples=64, test_limit=50
            ),
            "cpu": call(
                9, CPU_DATA, CPU, along=("random",), points=21, examples=500, part="test",
                test_limit=CPU_TEST,
            ),
            "paper": call(9, "cifar10", FULL, points=51, examples=None, part="test"),
        },
    )  # fmt: skip


def _rises(found: Any) -> dict[int, float]:
    """Seed -> how much higher the error is around the network, in points."""
    seeds = [one.seed for one in found.slices]
    rises = found.rise("accuracy", REACH)
    return dict(zip(seeds, [-100 * rise for rise in rises], strict=True))


def _rise(records: Sequence[Any]) -> Estimate:
    values = list(_rises(records[0]).values())
    return Estimate.of(paired(values, [0.0] * len(values)))


def _centre(records: Sequence[Any]) -> Estimate:
    values = [100 * (1 - value) for value in records[0].centre("accuracy")]
    return Estimate.of(paired(values, [0.0] * len(values)))


def _draw_landscapes(results: Results, path: Path) -> bool:
    """Top-1 error along a line, of every seed; or contours of the first."""
    from weightfold.report.figures import COLOURS, drawing

    found: Mapping[str, Any] = {
        line.label: records[0]
        for line in results.experiment.lines
        if (records := results.records(line.label))
    }
    if not found:
        return False
    size = (3.6 * len(found), 3.6)
    with drawing(path, figsize=size, ncols=len(found), squeeze=False) as (figure, axes):
        for axis, (label, one) in zip(axes[0], found.items(), strict=True):
            axis.set_title(label, fontsize="small")
            for part, colour in zip(one.slices, COLOURS, strict=False):
                errors = [None if v is None else 100 * (1 - v) for v in part.values["accuracy"]]
                if len(one.axes) == 1:
                    values = [float("nan") if e is None else e for e in errors]
                    axis.plot(one.axes[0], values, color=colour)
                    axis.set(ylim=(0, 100), xlabel="random direction", ylabel="top-1 error (%)")
                    axis.grid(alpha=0.3)
                elif part is one.slices[0]:
                    rows = len(one.axes[0])
                    grid = [errors[i::rows] for i in range(rows)]
                    drawn = axis.contour(*one.axes, grid, levels=range(5, 100, 5))
                    axis.clabel(drawn, fontsize="x-small")
        figure.suptitle("top-1 error around the trained networks", fontsize="medium")
    return True


def _flatter(where: str) -> Any:
    return all_of(
        *(lower(f"{n}, {where}", COMPACT, _rises, "rise of the error (points)") for n in EXPANDED)
    )


FIGURE4 = Experiment(
    name="guo2020-figure4",
    paper=f"{PAPER}, Figure 4",
    title="loss landscapes, kernel 9",
    measures=(
        Quantity(
            "rise",
            f"rise of the error within {REACH:g} (points)",
            over=by_probe({"landscape": _rise}),
        ),
        Quantity("centre", "top-1 error at the network (%)", over=by_probe({"landscape": _centre})),
    ),
    lines=(
        _landscape(COMPACT, "theta"),
        *(_landscape(name, space) for space in ("psi", "theta") for name in EXPANDED),
    ),
    presets={
        "smoke": Preset(1, SMOKE_DIFFERS),
        "cpu": Preset(
            3, f"{CPU_DIFFERS} {CPU_DATA}; a line of 21 points, not a plane, 500 test images."
        ),
        "paper": Preset(5, "The paper names neither grid nor directions; ours is 51 x 51."),
    },
    claims=(
        Claim(
            "CL and CK lie in flatter minima (in factor coordinates, as the paper's code would).",
            _flatter("factors"),
        ),
        Claim("Ours: also in folded coordinates, the same weights for all.", _flatter("folded")),
    ),
    notes="Random directions, each filter as long as the network's own, biases and batch norm "
    "left out, its statistics estimated anew at each point. In factor coordinates a step of "
    "relative length a in each factor moves the kernel by more than a: only folded coordinates "
    "compare. The paper prints pictures, no numbers.",
    figures=(Figure("landscapes", "Figure 4", _draw_landscapes),),
)

EXPERIMENTS = (FIGURE3, FIGURE4)
