"""Options of `wf.lottery_ticket`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from weightfold.core.select import Where
from weightfold.hints import check_fields
from weightfold.probes.tickets.prune import Method, Scope
from weightfold.train.together import Together


@dataclass(frozen=True)
class TicketOptions:
    """What is pruned, and how long the networks are trained.

    Attributes:
        rounds: Levels of pruning, at least 1.
        fraction: Share of the surviving weights that a level prunes, in (0, 1).
        method: "iterative": each level prunes the ticket of the last, trained; "one-shot": each
            prunes the trained full network, down to the same share in one go.
        scope: "layer": that share of each tensor; "global": of all tensors jointly.
        fractions: Name or glob of tensors -> their own share in place of `fraction`, the last that
            matches counts; or texts "fc3.weight:0.1". With scope="layer".
        where: Tensors to prune; None: weights of Linear layers and convolutions.
        rewind: Optimizer steps of the full network after which its weights are what survivors are
            set back to, a multiple of `every`; 0: the initial weights. The schedule of the learning
            rate and the order of the data begin anew there.
        random_trials: Networks with random masks at each level, at least as many as seeds, dealt
            out to the trials in turn; None: one for each.
        steps: Optimizer steps of each network, `rewind` included; None: recipe.epochs epochs.
        every: Steps between measurements.
        validation: Training examples to set aside for early stopping, a count or a share below 1;
            None: the data's own validation set, else a tenth.
        together: As of `fit_together`, which trains all networks of a level.

    Raises:
        TypeError: A value is of another type.
        ValueError: One is out of range.
    """

    rounds: int = 7
    fraction: float = 0.2
    method: Method = "iterative"
    scope: Scope = "layer"
    fractions: Mapping[str, float] | Sequence[str] = ()
    where: Where = None
    rewind: int = 0
    random_trials: int | None = None
    steps: int | None = None
    every: int = 100
    validation: float | None = None
    together: Together = "auto"

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("rounds", "every", "steps"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value}: give at least 1")
        if self.rewind < 0 or self.rewind % self.every:
            raise ValueError(f"rewind={self.rewind}: give 0 or a multiple of every={self.every}")


class TicketKeywords(TypedDict, total=False):
    """`TicketOptions` as keyword arguments of `wf.lottery_ticket`."""

    options: TicketOptions
    rounds: int
    fraction: float
    method: Method
    scope: Scope
    fractions: Mapping[str, float] | Sequence[str]
    where: Where
    rewind: int
    random_trials: int | None
    steps: int | None
    every: int
    validation: float | None
    together: Together
