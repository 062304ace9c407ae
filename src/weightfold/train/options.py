"""How a run is carried out. Imports no torch."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from weightfold.hints import check_fields

if TYPE_CHECKING:
    from weightfold.train.callbacks import Callback
    from weightfold.train.history import History
    from weightfold.train.starts import Start
else:  # what the annotations name when values are held against them
    Callback = History = Start = object

Precision = Literal["32-true", "16-mixed", "bf16-mixed"]


@dataclass(frozen=True)
class Options:
    """How a run is carried out, beside what it learns and by which recipe.

    Raises:
        TypeError: A value is of another type.
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
    """Also write the values to folder/tensorboard."""

    about: Mapping[str, Any] = field(default_factory=dict)
    """What else defines the run (network, expansion...), as JSON values; recorded, and compared
    when the folder already holds a run."""

    steps: int | None = None
    """Optimizer steps in all; none: the recipe's epochs. The schedule is the recipe's all the same,
    from its start."""

    every: int | None = None
    """Optimizer steps from one measurement to the next; none: an epoch."""

    measure: tuple[str, ...] | None = None
    """Parts of the data to measure in eval mode: "test", "validation", "train"; none: those held
    out, and the training examples at the end."""

    at_start: bool = False
    """Measure before the first step too."""

    save_seconds: float = 0.0
    """Seconds from one checkpoint to the next, which is written at a measurement; 0: at each. A
    run never depends on when they were written."""

    save_at: tuple[int, ...] = ()
    """Optimizer steps after which the weights are kept, as step-N.safetensors; 0: the initial."""

    until: "Callable[[History], bool] | None" = None
    """Ends the run early when true of its history, after a measurement."""

    callbacks: "tuple[Callable[[], Callback], ...]" = ()
    """Each makes a callback; their state is part of the checkpoint."""

    start: "Start | None" = None
    """Another run that this one starts from; none: the weights of the net given."""

    lr_factors: Mapping[str, float] = field(default_factory=dict)
    """Name of a parameter -> factor of its learning rate; those not named have 1."""

    in_place: bool = False
    """Update weights in the backward pass: no gradient is kept, so that memory is the weights and
    the activations. With plain sgd (no momentum, decay or clipping) on one device."""

    def __post_init__(self) -> None:
        check_fields(self)
        if wrong := [name for name, factor in self.lr_factors.items() if not factor > 0]:
            raise ValueError(f"lr_factors[{wrong[0]!r}] must be above 0")
        if self.in_place and (self.devices > 1 or self.precision != "32-true"):
            raise ValueError("in_place=True: needs devices=1 and precision='32-true'")
        if not self.validation >= 0:  # NaN is not
            raise ValueError(
                f"validation={self.validation}: a number of examples or a share, at least 0"
            )
        if self.devices < 1:
            raise ValueError(f"devices={self.devices}: it must be at least 1")
        if not self.save_seconds >= 0:
            raise ValueError(f"save_seconds={self.save_seconds}: give 0 or more")
        for name, value in (("every", self.every), ("steps", self.steps)):
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: give at least 1 optimizer step")
        if any(step < 0 for step in self.save_at):
            raise ValueError(f"save_at={self.save_at}: optimizer steps are counted from 0")
        parts = ("test", "validation", "train")
        if wrong := [part for part in self.measure or () if part not in parts]:
            raise ValueError(f"measure={wrong[0]!r}: it must be of {', '.join(parts)}")
