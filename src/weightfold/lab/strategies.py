"""Ways to share a backbone compared: an experiment made on the fly, of a study's runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from weightfold.data import Dataset
from weightfold.files import locked
from weightfold.lab.backbone import StudyRun, prepare
from weightfold.lab.claims import told_apart
from weightfold.lab.experiment import Claim, Experiment, Figure, Line, Preset, Quantity
from weightfold.lab.figures import scatter
from weightfold.lab.measures import column_by_domain
from weightfold.lab.page import judge_claims, write_results
from weightfold.lab.results import Outcome, Results
from weightfold.lab.run import plain
from weightfold.lab.study import INDEPENDENT, Study, StudyRecord
from weightfold.lab.tables import results_table
from weightfold.report.figures import learning_curves
from weightfold.report.terminal import as_text
from weightfold.train.checkpoint import sessions_of
from weightfold.train.domains.bundles import BUNDLE

PRESET = "study"


@dataclass(frozen=True)
class Strategies:
    """What a study found; prints as a table.

    Attributes:
        results: Lines are the strategies; measures "accuracy" (mean over domains, %),
            "accuracy/DOMAIN", "parameters", "stored" (MB), ...
        page: What was written.
        bundles: Folders of the nets of the first seed.
    """

    results: Results
    page: Path
    bundles: tuple[Path, ...]

    def __str__(self) -> str:
        table = results_table(self.results, self.results.experiment.lines)
        said = [verdict.numbers for verdict in judge_claims(self.results).values()]
        return "\n".join([as_text(table, self.results.experiment.title, turned=True), *said])


def study_domains(
    study: Study,
    datasets: Mapping[str, Dataset],
    folder: Path | str,
    *,
    asked: Mapping[str, Any] | None = None,
    progress: bool = True,
) -> Strategies:
    """Train domains together in one backbone, and compare ways to share it.

    Finished runs are not trained again: name further strategies or seeds to add them to the page.

    Args:
        study: Network, strategies, seeds and how they are trained.
        datasets: Domain -> data; sizes of images may differ, channels not.
        folder: Gets the runs, the first seed's net of each strategy as a bundle, and the page;
            runs there that were trained otherwise are refused.
        asked: What is told of the study in results.json; None: its fields.
        progress: Show bars.

    Raises:
        FileExistsError: A folder holds another run, or another process is at work in it.
        ValueError: As `weightfold.lab.backbone.prepare`, like the other errors before work begins.
    """
    folder = Path(folder)
    prepared = prepare(study, datasets)
    if progress and prepared.left_out:
        print(f"of {study.weights} {', '.join(prepared.left_out)} are left out: other classes")
    outcomes: dict[str, tuple[Outcome, ...]] = {}
    with locked(folder):
        for strategy, runs in prepared.runs.items():
            outcomes[strategy] = tuple(_outcome(run, folder, progress) for run in runs)
        results = compared(outcomes, f"{study.model}: {', '.join(datasets)}")
        page = write_results(results, folder, asked=plain(study) if asked is None else asked)
    shared = [strategy for strategy in prepared.strategies if strategy != INDEPENDENT]
    return Strategies(results, page, tuple(folder / name / BUNDLE for name in shared))


def _outcome(run: StudyRun, folder: Path, progress: bool) -> Outcome:
    if progress:
        print(run.title, flush=True)
    record = run.train(folder, progress=progress)
    return Outcome(run, record, tuple(sessions_of(folder / next(iter(run.folders().values())))))


def compared(outcomes: Mapping[str, tuple[Outcome, ...]], title: str) -> Results:
    """The outcomes of strategies as results; the first strategy is what others are compared with.

    Args:
        outcomes: Strategy -> an outcome a seed, with a `StudyRecord`.
        title: Of the page.
    """
    first, *others = outcomes
    domains = list(outcomes[first][0].record.histories)
    experiment = Experiment(
        name="",
        paper="",
        title=title,
        measures=_measures(domains),
        lines=tuple(Line(name, {PRESET: line[0].run}) for name, line in outcomes.items()),
        presets={PRESET: Preset(tuple(outcome.seed for outcome in outcomes[first]))},
        claims=tuple(
            Claim(f"{first} against {x}", told_apart(first, x, "accuracy", cells="accuracy/"))
            for x in others
        ),
        baseline=first if others else "",
        notes=_NOTES + (_ALONE if INDEPENDENT in outcomes else ""),
        figures=(
            Figure("curves", "Accuracy by epoch, each domain", _curves(domains)),
            Figure("storage", "Accuracy and storage", _storage, _STORED),
        ),
    )
    return Results(experiment, PRESET, outcomes)


_NOTES = (
    "Test accuracy in % after the last epoch. Own weights and own multiply-adds are a domain's "
    "share of the convolutions; at equal weights the bottom holds more of the compute than the top."
)
_ALONE = (
    " Independent is one whole network per domain, trained with as many steps a domain as the "
    "others."
)
_STORED = (
    "Bytes of all domains together, classifiers and batch norm included, against the mean test "
    "accuracy over domains. Up and left is better."
)


def _measures(domains: Sequence[str]) -> tuple[Quantity, ...]:
    def of(
        key: str, title: str, value: Callable[[StudyRecord], float], digits: int = 2
    ) -> Quantity:
        return Quantity(key, title, of=value, digits=digits)

    def hidden(key: str, value: Callable[[StudyRecord], float]) -> Quantity:
        return Quantity(key, key, of=value, section=None)

    return (
        of("accuracy", "mean over domains (%)", lambda r: fmean(r.accuracies.values())),
        *(of(f"accuracy/{d}", f"{d} (%)", lambda r, d=d: r.accuracies[d]) for d in domains),
        of("parameters", "parameters", lambda r: r.parameters, 0),
        of("stored", "MB", lambda r: r.bytes / 1e6, 3),
        of("shared", "MB shared", lambda r: r.shared_bytes / 1e6, 3),
        of(
            "own",
            "MB a domain",
            lambda r: (r.bytes - r.shared_bytes) / len(r.histories) / 1e6,
            3,
        ),
        of("own_weights", "own weights (%)", lambda r: 100 * r.weights_share, 1),
        of("own_compute", "own multiply-adds (%)", lambda r: 100 * r.macs_share, 1),
        hidden("bytes", lambda r: r.bytes),
        hidden("shared_bytes", lambda r: r.shared_bytes),
        hidden("seconds", lambda r: r.seconds),
    )


def _curves(domains: Sequence[str]) -> Callable[[Results, Path], bool]:
    def draw(results: Results, path: Path) -> bool:
        panels = {
            f"{domain}, test accuracy (%)": {
                label: [
                    column_by_domain(record.histories[domain], domain)
                    for record in results.records(label)
                ]
                for label in results.outcomes
            }
            for domain in domains
        }
        learning_curves(panels, path, title=results.experiment.title)
        return True

    return draw


def _storage(results: Results, path: Path) -> bool:
    return scatter(results, path, "stored", "accuracy", lambda label: label)
