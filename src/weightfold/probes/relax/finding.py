"""What setting convolutional networks free found."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from weightfold.probes.finding import Finding
from weightfold.probes.relax.figures import draw_relaxation
from weightfold.probes.relax.measurements import Point, State
from weightfold.probes.relax.runs import Line, Run
from weightfold.report.numbers import difference, mean_and_spread, number
from weightfold.report.page import Table
from weightfold.report.statistics import Paired, paired, summarize


@dataclass(frozen=True)
class Convolutional:
    """A convolutional network.

    Attributes:
        seed: Of it.
        curve: After each epoch, from 0; empty if it was given.
        accuracy: Of the trained network on the test set.
    """

    seed: int
    curve: tuple[Point, ...]
    accuracy: float


@dataclass(frozen=True, kw_only=True)
class Relaxation(Finding):
    """Convolutional networks, embedded at several times and trained on (d'Ascoli et al. 2019).

    Attributes:
        network: Class and size of the convolutional network.
        data: Name of the data.
        weights: Of the larger space.
        space: "dense" or "local".
        rate: "given" or "fair", as in `RelaxOptions`.
        lr: Learning rate in the larger space.
        optimizer: There.
        lasso: lambda of beta-lasso there.
        epochs: Of training there.
        seeds: Of the networks.
        times: Relax times, epochs of the convolutional network.
        convolutional: One for each seed.
        runs: In the larger space.
        recipe: Of the convolutional network; None if snapshots were given.
    """

    probe: ClassVar[str] = "relax"
    network: str
    data: str
    weights: int
    space: str
    rate: str
    lr: float
    optimizer: str
    lasso: float
    epochs: int
    seeds: tuple[int, ...]
    times: tuple[int, ...]
    convolutional: tuple[Convolutional, ...]
    runs: tuple[Run, ...]
    recipe: Mapping[str, Any] | None

    def of(self, relaxed_at: int | None) -> list[Run]:
        """The runs of a relax time, None: from scratch, that came to their end, by seed."""
        found = {r.seed: r for r in self.runs if r.relaxed_at == relaxed_at and not r.failed}
        return [found[seed] for seed in self.seeds if seed in found]

    def values(
        self, relaxed_at: int | None, of: Callable[[State], float | None], *, after: bool = True
    ) -> dict[int, float]:
        """Seed -> a value of its run, where it is known."""
        states = {run.seed: run.after if after else run.before for run in self.of(relaxed_at)}
        known = {seed: of(state) for seed, state in states.items() if state is not None}
        return {seed: value for seed, value in known.items() if value is not None}

    def gain(self, relaxed_at: int | None) -> Paired | None:
        """Final test accuracy of a relax time minus the convolutional network's, by seed."""
        ours = self.values(relaxed_at, lambda state: state.accuracy)
        if not ours:
            return None
        cnn = {one.seed: one.accuracy for one in self.convolutional}
        return paired(list(ours.values()), [cnn[seed] for seed in ours])

    @property
    def best(self) -> int | None:
        """The relax time with the highest mean accuracy; None if every run failed."""
        known = [t for t in self.times if self.of(t)]
        return max(known, key=lambda t: fmean(self._accuracies(t)), default=None)

    def _accuracies(self, relaxed_at: int | None) -> list[float]:
        return list(self.values(relaxed_at, lambda state: state.accuracy).values())

    def critical_deviations(self) -> list[tuple[Run, float | None]]:
        """Of each path to the network from scratch, delta where accuracy first falls to its level.

        Linear between the points; None where it does not fall so far before the end.
        """
        return [
            (run, _crossing(line))
            for run in self.runs
            for line in run.paths
            if line.ends == ("eFCN", "FCN")
        ]

    @property
    def headline(self) -> str:
        """The answer in words."""
        cnn = summarize([one.accuracy for one in self.convolutional])
        text = f"The convolutional network: {mean_and_spread(cnn, 1, unit='%', factor=100)}."
        if scratch := self._accuracies(None):
            found = mean_and_spread(summarize(scratch), 1, unit="%", factor=100)
            text += f" From scratch in the {self.space} space: {found}."
        best = self.best
        if best is None:
            return f"{text} No relaxed network could be trained to its end."
        gain = self.gain(best)
        assert gain is not None
        found = mean_and_spread(summarize(self._accuracies(best)), 1, unit="%", factor=100)
        return (
            f"{text} Set free after {best} epochs, the best of {len(self.times)} times: {found}, "
            f"{difference(gain, 1, unit='points', factor=100)} beside the convolutional network "
            "(chosen on the same test set: optimistic)."
        )

    @property
    def meaning(self) -> str:
        """What it means, in words."""
        return (
            "A convolutional network is a fully-connected one whose weights are local and shared. "
            "Here it is written as that and trains on without the constraint from several times of "
            "its training. How far it then goes (delta: the share of its weights, in norm, that no "
            "convolution reaches) and what it gains tell what the constraint is good for, and when."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each run in the larger space."""
        cnn = {one.seed: one.accuracy for one in self.convolutional}
        rows = []
        for run in self.runs:
            row: dict[str, Any] = {
                "seed": run.seed,
                "relaxed_at": "scratch" if run.relaxed_at is None else run.relaxed_at,
                "cnn_accuracy": cnn[run.seed],
                "failed": run.failed,
            }
            for when, state in (("before", run.before), ("after", run.after)):
                fields = State.__dataclass_fields__ if state else {}
                row |= {f"{when}_{name}": getattr(state, name) for name in fields}
                row |= {f"{when}_sharing": state.sharing} if state else {}
            rows.append(row)
        names = list(dict.fromkeys(name for row in rows for name in row))
        return [{name: row.get(name) for name in names} for row in rows]

    def table(self) -> Table:
        """A row for each relax time, means over seeds."""
        columns = ["relaxed at", "accuracy (%)", "minus CNN (points)", "delta (%)"]
        columns += ["sharing (%)", "local alone (%)", "off-local alone (%)", "gradient"]
        columns += ["top eigenvalue"]
        rows = []
        for time in (None, *self.times):
            gain = self.gain(time)
            if gain is None:
                continue
            cells = [
                self._cell(time, of, factor)
                for of, factor in (
                    (lambda s: s.local, 100), (lambda s: s.sharing, 100),
                    (lambda s: s.only_local, 100), (lambda s: s.only_off_local, 100),
                )
            ]  # fmt: skip
            pairs = [
                f"{self._cell(time, of, 1, after=False)} to {self._cell(time, of, 1)}"
                for of in (lambda s: s.gradient, lambda s: s.eigenvalue)
            ]
            mean = number(100 * fmean(self._accuracies(time)), 1)
            name = "from scratch" if time is None else str(time)
            rows.append([name, mean, difference(gain, 1, factor=100), *cells, *pairs])
        return Table(columns, rows)

    def _cell(
        self,
        time: int | None,
        of: Callable[[State], float | None],
        factor: float,
        *,
        after: bool = True,
    ) -> str:
        values = list(self.values(time, of, after=after).values())
        return number(factor * fmean(values), 2) if values else ""

    def draw(self, path: Path) -> None:
        """The paper's figures 2 to 7."""
        draw_relaxation(self, path)


def _crossing(line: Line) -> float | None:
    level = line.accuracy[-1]
    for index in range(1, len(line.accuracy) - 1):
        above, below = line.accuracy[index - 1], line.accuracy[index]
        if below <= level < above:
            share = (above - level) / (above - below)
            return line.local[index - 1] + share * (line.local[index] - line.local[index - 1])
    return None
