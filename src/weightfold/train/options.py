"""How a run is carried out. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Options:
    """How a run is carried out, beside what it learns and by which recipe.

    Raises:
        ValueError: A value is out of range.
    """

    validation: int | float = 0
    """Training examples (int) or share of them (float) to hold out. The best epoch is chosen on
    them, without them on the test set, as `History.selection` says."""

    precision: Precision = "32-true"
    """"32-true"; or "16-mixed" or "bf16-mixed", in which charts stay in float32."""

    devices: int = 1
    """Processes, each with a device and its slice of every batch (DDP, started by spawn: guard your
    script with `if __name__ == "__main__"`). The gradient is that of the whole batch; batch norm
    sees its slice, and the first process's statistics are kept."""

    resume: bool = True
    """False refuses a folder that holds a run."""

    tensorboard: bool = False
    """Also write the figures to folder/tensorboard."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What else defines the run (network, expansion...), as JSON values; recorded, and compared
    when the folder already holds a run."""

    def __post_init__(self) -> None:
        if self.validation < 0:
            raise ValueError(
                f"validation={self.validation}: a number of examples or a share, at least 0"
            )
        if self.devices < 1:
            raise ValueError(f"devices={self.devices}: it must be at least 1")
        choices = ("32-true", "16-mixed", "bf16-mixed")
        if self.precision not in choices:
            raise ValueError(f"precision={self.precision!r}: it must be one of {choices}")
