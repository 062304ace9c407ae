"""What an experiment on several domains came to, read from the folders of its runs."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any, Literal

from weightfold.lab.domains_cell import DomainCell, plan_of
from weightfold.lab.domains_declare import Counted, DomainsExperiment, Plan
from weightfold.report.statistics import Paired, Summary, paired, summarize

if TYPE_CHECKING:
    from weightfold.methods.share import plan as plans
    from weightfold.methods.share.account import Account
    from weightfold.train import History

Epoch = Literal["last", "best"]
MEAN = "mean"
"""In place of a domain: the mean over the domains."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """A cell and what is known of it.

    Attributes:
        cell: The cell.
        history: Its epochs; None while it is not finished.
        sessions: When, with which versions and where it ran.
    """

    cell: DomainCell
    history: "History | None"
    sessions: tuple[dict[str, Any], ...] = ()


@dataclass(frozen=True)
class Count:
    """How often a claim held.

    Attributes:
        held: Cells in which the mean over seeds is on the claim's side.
        clear: Of these, with the whole 95% interval of the paired difference.
        against: Cells whose whole interval lies on the other side.
        of: Cells that were run.
        difference: Of the mean over all these cells, paired by seed, in points; None if not run.
    """

    held: int
    clear: int
    against: int
    of: int
    difference: Paired | None


@dataclass(frozen=True, eq=False)
class Results:
    """An experiment's outcomes in one preset.

    Attributes:
        experiment: What was run.
        preset: In which preset.
        outcomes: Label -> an outcome per seed.
    """

    experiment: DomainsExperiment
    preset: str
    outcomes: Mapping[str, tuple[Outcome, ...]]

    @property
    def missing(self) -> list[DomainCell]:
        """Cells not finished yet."""
        return [o.cell for line in self.outcomes.values() for o in line if o.history is None]

    @property
    def domains(self) -> list[str]:
        """All domains of any line, in the preset's order."""
        return [domain.name for domain in self.experiment.presets[self.preset].domains]

    def line(self, label: str) -> Plan:
        """A line by its label."""
        return next(line for line in self.experiment.lines if line.label == label)

    def domains_of(self, label: str) -> list[str]:
        """The domains of a line; none if the preset leaves it out."""
        cells = self.outcomes.get(label, ())
        return [domain.name for domain in cells[0].cell.domains] if cells else []

    def values(self, label: str, domain: str = MEAN, epoch: Epoch = "last") -> dict[int, float]:
        """Seed -> test accuracy in percent, for the seeds that are finished.

        Args:
            label: Of the line.
            domain: Its name, or `MEAN`.
            epoch: The last, or the one whose mean over the domains is best.
        """
        found = {}
        for outcome in self.outcomes.get(label, ()):
            if outcome.history is not None:
                history = outcome.history
                shares = history.last_values if epoch == "last" else history.best_values
                share = fmean(shares.values()) if domain == MEAN else shares.get(domain)
                if share is not None:
                    found[outcome.cell.seed] = 100 * share
        return found

    def summary(self, label: str, domain: str = MEAN, epoch: Epoch = "last") -> Summary | None:
        """Mean and spread over seeds; None without values."""
        values = list(self.values(label, domain, epoch).values())
        return summarize(values) if values else None

    def plan(self, label: str) -> "plans.Plan":
        """What each domain owns, of the first seed."""
        cell = self.outcomes[label][0].cell
        return plan_of(cell.model, cell.plan, cell.size, cell.seed)

    def account(self, label: str) -> "Account":
        """What the line costs, with its domains' own numbers of classes."""
        return self.plan(label).account(self.outcomes[label][0].cell.classes)

    def difference(self, a: str, b: str, domain: str, epoch: Epoch = "last") -> Paired | None:
        """Accuracy of line `a` minus `b` on a domain, paired by seed, in points."""
        ours, others = self.values(a, domain, epoch), self.values(b, domain, epoch)
        seeds = sorted(ours.keys() & others.keys())
        return paired([ours[s] for s in seeds], [others[s] for s in seeds]) if seeds else None

    def count(self, claim: Counted, epoch: Epoch = "last") -> Count:
        """In how many cells a claim held."""
        cells = [(a, b, domain) for a, b in claim.pairs for domain in self.domains_of(a)]
        found = {cell: d for cell in cells if (d := self.difference(*cell, epoch))}
        return Count(
            held=sum(_holds(d.mean, claim) for d in found.values()),
            clear=sum(d.low is not None and d.low > 0 for d in found.values()),
            against=sum(d.high is not None and d.high < 0 for d in found.values()),
            of=len(found),
            difference=self._mean_difference(list(found), epoch),
        )

    def _mean_difference(self, cells: list[tuple[str, str, str]], epoch: Epoch) -> Paired | None:
        """Of the mean over cells (a, b, domain), over the seeds that all of them have."""
        ours = [self.values(a, domain, epoch) for a, _, domain in cells]
        others = [self.values(b, domain, epoch) for _, b, domain in cells]
        seeds = set.intersection(*({*one} for one in (*ours, *others))) if cells else set()
        if not seeds:
            return None
        order = sorted(seeds)
        return paired(
            [fmean(one[seed] for one in ours) for seed in order],
            [fmean(one[seed] for one in others) for seed in order],
        )

    def published_count(self, claim: Counted) -> tuple[int, int, float] | None:
        """The same of the paper's numbers: held, cells, mean difference in points; None without."""
        differences = []
        for a, b in claim.pairs:
            ours, others = self.line(a).published or {}, self.line(b).published or {}
            differences += [100 * (ours[d] - others[d]) for d in ours if d in others]
        if not differences:
            return None
        return sum(_holds(x, claim) for x in differences), len(differences), fmean(differences)


def _holds(difference: float, claim: Counted) -> bool:
    """Whether a difference in points, true up to rounding, is on the claim's side."""
    return difference > 1e-9 or (claim.or_equal and difference > -1e-9)


def read_results(
    experiment: DomainsExperiment, preset: str, runs: Path, *, seeds: int | None = None
) -> Results:
    """Read what is finished; trains nothing.

    Args:
        experiment: Whose cells.
        preset: One of its presets.
        runs: Folder of the runs.
        seeds: As for `DomainsExperiment.cells`.
    """
    cells = experiment.cells(preset, seeds=seeds)
    outcomes = {label: tuple(_read(cell, runs) for cell in line) for label, line in cells.items()}
    return Results(experiment, preset, outcomes)


def _read(cell: DomainCell, runs: Path) -> Outcome:
    from weightfold.train import checkpoint

    history = cell.finished(runs)
    if history is None:
        return Outcome(cell, None)
    return Outcome(cell, history, tuple(checkpoint.sessions_of(runs / cell.folder)))
