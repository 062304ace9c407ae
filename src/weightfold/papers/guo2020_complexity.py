"""ExpandNets' Table 6: parameters, multiply-adds and training time by expansion rate."""

from dataclasses import replace

from weightfold.lab.claims import Claim, all_of, at_most, below
from weightfold.lab.declare import Experiment, Line, Number, Preset
from weightfold.lab.measures import MULTIPLY_ADDS, PARAMETERS, step_time
from weightfold.papers._guo2020 import CIFAR10, PAPER, SMOKE, SMOKE_DATA, SMOKE_DIFFERS
from weightfold.train.recipe import RECIPES

SMALLNET = "smallnet_b,kernel_size=7"
_COMPACT_EPOCH = 4.05

# Method, rate -> parameters (K), multiply-adds (M), seconds an epoch.
_PRINTED = {
    ("FC", 2): (339.40, 6.30, 4.09),
    ("FC", 4): (675.91, 6.64, 3.94),
    ("FC", 8): (1740, 7.70, 4.02),
    ("CL", 2): (562.95, 25.16, 4.13),
    ("CL", 4): (2170, 98.39, 4.61),
    ("CL", 8): (8580, 389.35, 9.39),
    ("CK", 2): (237.72, 14.38, 4.10),
    ("CK", 4): (653.25, 42.64, 4.12),
    ("CK", 8): (2070, 141.10, 5.50),
}


def _published(parameters: float, multiply_adds: float) -> dict[str, dict[str, Number]]:
    return {"cifar10": {"parameters": (parameters, None), "multiply_adds": (multiply_adds, None)}}


def _lines(method: str, rate: int) -> tuple[Line, Line]:
    """The expansion folded on the fly, and run as the chain that the paper times."""
    parameters, multiply_adds, seconds = _PRINTED[method, rate]
    label, variant = f"{method} r={rate}", f"{method.lower()},rate={rate}"
    epochs: dict[str, dict[str, Number]] = {
        "cifar10": {"step_time": (seconds / _COMPACT_EPOCH, None)}
    }
    return (
        Line(label, SMALLNET, variant, _published(parameters, multiply_adds)),
        Line(f"{label}, as a chain", SMALLNET, f"{variant},execution=chain", epochs),
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
    lines=(
        Line("SmallNet", SMALLNET, "compact", _published(150.35, 6.12)),
        *(line for method, rate in _PRINTED for line in _lines(method, rate)),
    ),
    presets={
        "smoke": Preset(
            {"": _SMOKE},
            1,
            SMOKE_DIFFERS.replace("two epochs", "one epoch"),
            data=SMOKE_DATA,
            lines=_SMOKE_LINES,
        ),
        "cpu": Preset(
            {"": _EPOCH},
            1,
            "On a CPU, and 20 steps of training rather than an epoch; the paper's epoch on a TITAN "
            "V includes loading data. For a sharper figure, with steps timed alternately, run "
            "weightfold bench expand.",
            options="limit=2560",
        ),
        "paper": Preset({"": _EPOCH}, 3, "Our step time beside the paper's epoch time."),
    },
    claims=(
        Claim(
            "Run as a chain, training takes moderately longer as r grows: up to 2.32 times",
            all_of(
                *(
                    at_most(f"{method} r={rate}, as a chain", "step_time", 2.32)
                    for method, rate in _PRINTED
                )
            ),
        ),
        Claim(
            "Ours, not the paper's: folded on the fly, a step takes less time than as a chain",
            all_of(
                *(
                    below(f"{method} r={rate}", f"{method} r={rate}, as a chain", "step_time")
                    for method, rate in _PRINTED
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
