"""Options of `wf.confusion`."""

from dataclasses import dataclass
from typing import TypedDict

from weightfold.core.arguments import whole


@dataclass(frozen=True, kw_only=True)
class ConfusionOptions:
    """What is compared.

    Attributes:
        pairs: Random pairs of mini-batches, at the end of each epoch.
        batches: At most so many different mini-batches; their gradients cost the time.
        batch_size: Of the mini-batches; None: the recipe's.

    Raises:
        ValueError: One is out of range.
    """

    pairs: int = 100
    batches: int = 40
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for name, least in (("pairs", 1), ("batches", 2)):
            whole(getattr(self, name), name, least=least)
        if self.batch_size is not None:
            whole(self.batch_size, "batch_size", least=1)


class ConfusionKeywords(TypedDict, total=False):
    """`ConfusionOptions` as keyword arguments of `wf.confusion`."""

    options: ConfusionOptions
    pairs: int
    batches: int
    batch_size: int | None
