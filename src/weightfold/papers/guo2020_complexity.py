"""ExpandNets' Table 6: parameters, multiply-adds and training time by expansion rate."""

from dataclasses import replace
from itertools import product

from weightfold.lab.claims import all_of, at_most, below
from weightfold.lab.experiment import Axis, Claim, Experiment, Preset
from weightfold.lab.measures import MULTIPLY_ADDS, PARAMETERS, step_time
from weightfold.papers._guo2020 import (
    CIFAR10,
    NUMBERS,
    PAPER,
    SMOKE,
    SMOKE_DATA,
    SMOKE_DIFFERS,
    Network,
    Size,
    lines_of,
)
from weightfold.train.recipe import RECIPES

SMALLNET = "smallnet_b,kernel_size=7"
_PRINTED = NUMBERS.rows("Table 6")
_COMPACT_EPOCH = _PRINTED["SmallNet"]["epoch"]
_EXPANDED = tuple(product(("FC", "CL", "CK"), (2, 4, 8)))
_SLOWEST = _PRINTED["CL r=8"]["epoch"].over(_COMPACT_EPOCH)


def _counts(row: str) -> dict:
    cells = {"parameters": "parameters", "multiply_adds": "multiply-adds"}
    return {measure: _PRINTED[row][cell] for measure, cell in cells.items()}


def _networks(method: str, rate: int) -> tuple[Network, Network]:
    """The expansion folded on the fly, and run as the chain that the paper times."""
    label, variant = f"{method} r={rate}", f"{method.lower()},rate={rate}"
    epochs = {"step_time": _PRINTED[label]["epoch"].over(_COMPACT_EPOCH)}
    chain = f"{variant},execution=chain"
    return (
        Network(label, SMALLNET, variant, _counts(label), at=rate, series=(method,)),
        Network(
            f"{label}, as a chain", SMALLNET, chain, epochs, at=rate, series=(f"{method}, chain",)
        ),
    )


_SMOKE_LINES = ("SmallNet", "CL r=2", "CK r=2", "CK r=2, as a chain")
_SMOKE = replace(SMOKE, epochs=1, batch_size=32)
_EPOCH = replace(RECIPES["expandnets-cifar"], epochs=1, schedule="constant", milestones=())

TABLE6 = Experiment(
    name="guo2020-table6",
    paper=f"{PAPER}, Table 6",
    title="SmallNet with 7 x 7 kernels: parameters, multiply-adds and training time by rate",
    columns=(CIFAR10,),
    measures=(step_time("SmallNet"), PARAMETERS, MULTIPLY_ADDS),
    lines=lines_of(
        (
            Network("SmallNet", SMALLNET, "compact", _counts("SmallNet")),
            *(network for method, rate in _EXPANDED for network in _networks(method, rate)),
        ),
        {
            "smoke": Size({"": _SMOKE}, SMOKE_DATA),
            "cpu": Size({"": _EPOCH}, options="limit=1280", test_limit=128),
            "paper": Size({"": _EPOCH}),
        },
    ),
    axis=Axis("expansion rate", log=True),
    presets={
        "smoke": Preset(
            1,
            SMOKE_DIFFERS.replace("two epochs", "one epoch"),
            data=SMOKE_DATA,
            lines=_SMOKE_LINES,
        ),
        "cpu": Preset(
            3,
            "On a CPU, and 10 steps of training rather than an epoch, so that the accuracies mean "
            "nothing; the paper's epoch on a TITAN V includes loading data. Where the machine does "
            "other work meanwhile the ratios are rough. For a sharper figure, with steps timed "
            "alternately, run weightfold bench expand.",
            data="cifar10",
        ),
        "paper": Preset(3, "Our step time beside the paper's epoch time.", data="cifar10"),
    },
    claims=(
        Claim(
            "Run as a chain, training takes moderately longer as r grows: up to 2.32 times",
            all_of(
                *(
                    at_most(f"{method} r={rate}, as a chain", "step_time", round(_SLOWEST.value, 2))
                    for method, rate in _EXPANDED
                )
            ),
            (_SLOWEST,),
        ),
        Claim(
            "Ours, not the paper's: folded on the fly, a step takes less time than as a chain",
            all_of(
                *(
                    below(f"{method} r={rate}", f"{method} r={rate}, as a chain", "step_time")
                    for method, rate in _EXPANDED
                    if method != "FC"
                )
            ),
        ),
    ),
    notes="Times are medians over an epoch's training steps, divided by SmallNet's; run with "
    "jobs=1 on a machine that does nothing else. Parameters and multiply-adds are counted, not "
    "measured. Multiply-adds include biases (one an output) and batch norm (two an output), as the "
    "printed ones must; these are 0.03 million more, which is what ReLU and pooling come to.",
)

EXPERIMENTS = (TABLE6,)
