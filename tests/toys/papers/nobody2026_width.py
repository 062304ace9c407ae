"""A toy: a table along a numeric axis, of training runs and of a probe."""

from statistics import fmean
from typing import Any

from weightfold.lab.claims import below
from weightfold.lab.experiment import (
    PRESETS,
    Axis,
    Claim,
    Estimate,
    Experiment,
    Line,
    Preset,
    Quantity,
)
from weightfold.lab.probing import calling

WIDTHS = (4, 8, 16)


def _size(records: Any) -> Estimate:
    values = records[0].values
    return Estimate(fmean(values), n=len(values))


EXPERIMENTS = (
    Experiment(
        name="nobody2026-width",
        paper="Nobody, On widths, 2026",
        title="Wider networks begin with smaller weights",
        measures=(Quantity("size", "mean |w|", over=_size, digits=4),),
        lines=tuple(
            Line(
                f"width {width}",
                {
                    preset: calling("toy-size", f"mlp,depth=1,width={width},size=8", "digits")
                    for preset in PRESETS
                },
                at=width,
            )
            for width in WIDTHS
        ),
        presets=dict.fromkeys(PRESETS, Preset(2, "Nothing.")),
        claims=(Claim("Wider is smaller.", below("width 16", "width 4", "size")),),
        axis=Axis("width", log=True),
    ),
)
