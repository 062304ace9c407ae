"""What each domain owns, beside the strategy: options of planning. Imports no torch."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightfold.methods.share.plan import Plan

Strategy = Literal["bottom", "top", "random"]
DEFAULT_FRACTION = 0.2


@dataclass(frozen=True)
class Sharing:
    """What each domain owns, beside the strategy."""

    fraction: float | None = None
    """Share of the budget that a domain owns, 0 (batch norm and classifier only) to 1; none: 0.2,
    unless num_filters says it."""

    num_filters: int | None = None
    """Number of filters a domain owns, instead of a fraction; the paper's Table 1 has round ones,
    such as 7500 for the bottom of mobilenet_v2."""

    budget: Literal["weights", "macs"] = "weights"
    """What the fraction is of: the convolutions' weights, or their multiply-adds."""

    bn: Literal["domain", "shared"] = "domain"
    """Batch norm, running statistics included, per domain or shared."""

    shared_norms: tuple[str, ...] = ()
    """Batch norms to share although the others are per domain: paths or globs, such as
    '*.downsample.1'."""

    head: Literal["domain", "shared"] = "domain"
    """Classifier per domain, or one of the most classes for all."""

    head_path: str | None = None
    """Path of the classifier in the network; none: found by a run of the network."""

    @property
    def settled(self) -> "Sharing":
        """The same, with the fraction that is taken where nothing is said."""
        unsaid = self.fraction is None and self.num_filters is None
        return replace(self, fraction=DEFAULT_FRACTION) if unsaid else self

    def plan(
        self, model: "nn.Module", strategy: Strategy, example_input: "Tensor", seed: int
    ) -> "Plan":
        """The plan for a strategy.

        Args:
            model: A plain network.
            strategy: Which filters.
            example_input: (1, C, H, W).
            seed: Of random filters.

        Raises:
            ValueError: As `plan_sharing`.
        """
        from weightfold.methods.share.plan import plan_sharing

        return plan_sharing(
            model,
            strategy,
            self.settled.fraction,
            num_filters=self.num_filters,
            budget=self.budget,
            seed=seed,
            bn=self.bn,
            shared_norms=list(self.shared_norms) or None,
            head=self.head,
            head_path=self.head_path,
            example_input=example_input,
        )
