"""Options of `wf.layer_reset`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypedDict

from weightfold.hints import check_fields
from weightfold.probes.layers.batch_norm import Policy, check_policy
from weightfold.probes.layers.networks import Checkpoints


@dataclass(frozen=True, kw_only=True)
class ResetOptions:
    """What layers are set back to.

    Attributes:
        bn: What becomes of batch norm's running statistics, see `splice`; it decides the outcome
            and must be given. "recalibrate" uses at most `CALIBRATION` training examples, for
            trained networks too.
        checkpoints: Epoch -> state_dict or safetensors path, of one network or a list of several;
            epoch 0 is the initial network, the last the trained one. None: networks are trained.
        reset_to: Epochs to go back to, beside 0; None: 1, 2, 4, 8 and so on. Not with
            `checkpoints`, which have their own.
        draws: Times that each layer is drawn anew, for the mean: by `net` if that is a function,
            else by each layer's `reset_parameters()`.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is out of range.
    """

    bn: Policy
    checkpoints: Checkpoints | Sequence[Checkpoints] | None = None
    reset_to: Sequence[int] | None = None
    draws: int = 3

    def __post_init__(self) -> None:
        check_fields(self)
        check_policy(self.bn)
        if self.draws < 1:
            raise ValueError(f"draws={self.draws}: give at least 1")
        if self.checkpoints is not None and self.reset_to is not None:
            raise ValueError("reset_to is for training; with checkpoints it is their epochs")


class ResetKeywords(TypedDict, total=False):
    """`ResetOptions` as keyword arguments of `wf.layer_reset`."""

    options: ResetOptions
    bn: Policy
    checkpoints: Checkpoints | Sequence[Checkpoints] | None
    reset_to: Sequence[int] | None
    draws: int
