"""By what a network is judged. Imports no torch."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """By what a network is judged.

    Attributes:
        name: As in columns of a history: "accuracy".
        title: In words: "top-1 accuracy".
        higher_is_better: Else lower is.
        share: Whether it is a share in [0, 1], printed in percent.
        of_part: Whether it is of a part of the data as a whole, from `Task.metrics`; else it is a
            mean over examples, from `Task.scores`.
    """

    name: str
    title: str
    higher_is_better: bool = True
    share: bool = False
    of_part: bool = False

    def best(self, values: Sequence[float | None]) -> int:
        """Place of the first of the best values; None and NaN are worse than any number."""
        sign = 1 if self.higher_is_better else -1
        known = [v is not None and v == v for v in values]
        ranked = [
            sign * (v or 0.0) if k else -float("inf") for v, k in zip(values, known, strict=True)
        ]
        return ranked.index(max(ranked))

    def text(self, value: float | None) -> str:
        """The value with its name: "accuracy 91.20%"."""
        if value is None:
            return f"{self.name} unknown"
        return f"{self.name} {value:.2%}" if self.share else f"{self.name} {value:.4g}"


ACCURACY = Measure("accuracy", "top-1 accuracy", higher_is_better=True, share=True)
