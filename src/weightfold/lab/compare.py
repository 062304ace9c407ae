"""Compare ways to train one network over seeds: an experiment made on the fly."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypedDict

from torch import nn

from weightfold.data import Dataset
from weightfold.files import foreign, locked
from weightfold.hints import check_arguments
from weightfold.lab.best import Deployed, deploy_best
from weightfold.lab.claims import told_apart
from weightfold.lab.executors.registry import opened
from weightfold.lab.experiment import Claim, Experiment, Line, Preset, Quantity
from weightfold.lab.measures import task_measures
from weightfold.lab.page import judge_claims, write_results
from weightfold.lab.pictures import pictures
from weightfold.lab.results import Results, read_results
from weightfold.lab.run import HERE, Execution
from weightfold.lab.runner import run_cells
from weightfold.lab.saved import deployed
from weightfold.lab.step_times import device_of_fit, step_seconds, threads_of
from weightfold.lab.tables import results_table
from weightfold.lab.training import Given, Training, given_data, given_net, net_of, task_of
from weightfold.records import read_record, write_record
from weightfold.report.page import Section
from weightfold.report.terminal import as_text
from weightfold.tasks.measure import ACCURACY, Measure
from weightfold.tasks.task import Task
from weightfold.train import Recipe, checkpoint, session
from weightfold.train.record import check_same
from weightfold.train.seeding import as_seeds

PRESET = "comparison"


class ComparisonRecord(TypedDict):
    """What a comparison's run.json holds."""

    configuration: dict[str, Any]
    sessions: list[dict[str, Any]]
    step_seconds: dict[str, float]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; prints as a table.

    Attributes:
        results: Lines are the variants, measures "last_accuracy" (%), "best_accuracy" (%) (or what
            the task's measure is called), "epochs", "training_parameters", "deployed_parameters",
            "step" (ms), "step_ratio".
        deployed: The exported network.
        page: What was written.
    """

    results: Results
    deployed: Deployed
    page: Path

    def __str__(self) -> str:
        table = results_table(self.results, self.results.experiment.lines)
        said = [verdict.numbers for verdict in judge_claims(self.results).values()]
        title = self.results.experiment.title
        return "\n".join([as_text(table, title, turned=True), *said, str(self.deployed)])


def compare(
    net: str | Callable[[int], nn.Module],
    data: str | Dataset | Task,
    variants: Sequence[str] = ("compact", "ck,rate=4", "cl,rate=4"),
    *,
    recipe: Recipe,
    folder: Path | str,
    seeds: int | Sequence[int] = 5,
    task: str = "classify",
    match: Literal["epochs", "time"] = "epochs",
    execution: Execution = HERE,
) -> Comparison:
    """Train a network in several ways over seeds; leave numbers, a page and the best one deployed.

    A call that was stopped goes on when it is repeated.

    >>> import tempfile, weightfold as wf
    >>> from weightfold.lab.run import Execution
    >>> found = wf.compare(
    ...     "digitnet",
    ...     "digits,limit=100",
    ...     ("compact", "cl,rate=2"),
    ...     recipe=wf.Recipe(epochs=1),
    ...     folder=tempfile.mkdtemp(),
    ...     seeds=2,
    ...     execution=Execution(progress=False),
    ... )
    >>> found.page.name
    'index.html'

    Args:
        net: Network spec, see `weightfold.nets.build`; or a function that makes the network of a
            seed.
        data: Data spec, see `weightfold.data.load`; or a data set, or a task.
        variants: See `weightfold.lab.variants`; the first is what the others are compared with.
        recipe: Hyperparameters.
        folder: Made if missing; gets results.json and .csv, runs.csv, curves.png, index.html, the
            runs in runs/, and the best variant's network in deployed/.
        seeds: How many, 0, 1, 2, ..., or which; at least two. A seed's variants share the order of
            the data and the augmentation, and the initial weights of all that is not expanded.
        task: What is learnt of data that is no task itself, see `weightfold.tasks.build`.
        match: "epochs", the recipe's for all; or "time": the slowest variant gets those, the
            others as many as its steps take, by step times measured at first. Milestones and
            warm-up are stretched with them.
        execution: Where and how they are trained; step times are measured on this machine.

    Raises:
        FileExistsError: The folder holds another comparison (the message says what differs), or
            other files; or another process compares in it.
        ValueError: A spec is wrong, or variants or seeds are too few or repeat.
        CellsFailed: A training failed.
        ConnectionError: The executor cannot be reached.
    """
    check_arguments(
        compare, variants=variants, recipe=recipe, folder=folder, match=match, execution=execution
    )
    folder, variants, seeds = Path(folder), tuple(variants), as_seeds(seeds)
    for name, values in (("variants", variants), ("seeds", seeds)):
        if len(set(values)) < max(2, len(values)):
            raise ValueError(f"{name}={values}: give at least two, each once")
    what = net if isinstance(net, str) else given_net(net)
    examples = data if isinstance(data, str) else given_data(data)
    task = data.name if isinstance(data, Task) else task
    configuration = _configuration(what, examples, variants, seeds, recipe) | {"match": match}
    configuration |= {} if task == "classify" else {"task": task}
    if not check_same(configuration, folder) and foreign(folder):
        raise FileExistsError(
            f"folder={str(folder)!r} holds files that are no comparison; give a new or empty one"
        )
    runs = {v: Training(what, v, examples, recipe, seeds[0], task=task) for v in variants}
    learnt = task_of(runs[variants[0]], execution.data_root)
    nets = {v: net_of(run, learnt) for v, run in runs.items()}
    runs_in, jobs = folder / "runs", execution.jobs
    with opened(execution.on, runs_in, jobs=jobs) as executor, locked(folder):
        with threads_of(executor):
            times = _begin(folder, configuration, nets, learnt, recipe)
        slowest = max(times.values())
        for variant, seconds in times.items():
            epochs = round(recipe.epochs * slowest / seconds) if match == "time" else recipe.epochs
            runs[variant] = replace(runs[variant], recipe=stretched(recipe, epochs))
        experiment = _experiment(runs, seeds, nets, times, match, learnt.measure)
        lines = zip(*experiment.runs(PRESET).values(), strict=True)
        run_cells(
            [run for line in lines for run in line],
            folder / "runs",
            data_root=execution.data_root,
            on=executor,
            progress=execution.progress,
        )
        results = read_results(experiment, PRESET, folder / "runs")
        shipped = deploy_best(results, folder, learnt)
        told = [*pictures(results, folder, learnt), _deployed_section(shipped)]
        experiment = replace(experiment, sections=lambda *_: told)
        page = write_results(replace(results, experiment=experiment), folder, asked=configuration)
    return Comparison(results, shipped, page)


def _configuration(
    net: str | Given,
    data: str | Given,
    variants: tuple[str, ...],
    seeds: tuple[int, ...],
    recipe: Recipe,
) -> dict[str, Any]:
    """What defines a comparison, as JSON values."""
    return {
        "model": net if isinstance(net, str) else f"{net}, {net.digest}",
        "data": data if isinstance(data, str) else f"{data}, {data.digest}",
        "variants": list(variants),
        "seeds": list(seeds),
        "recipe": json.loads(json.dumps(asdict(recipe))),
    }


_PER_RUN = (
    Quantity("best_epoch", "best epoch", of=lambda h: h.best_epoch, section=None),
    Quantity("seconds", "seconds", of=lambda h: h.seconds, section=None),
)


def _experiment(
    runs: Mapping[str, Training],
    seeds: tuple[int, ...],
    nets: Mapping[str, nn.Module],
    times: Mapping[str, float],
    match: str,
    by: Measure,
) -> Experiment:
    """Lines are the variants, the first the baseline; `by` is the task's measure."""
    first, *others = runs
    last, best, on_training = task_measures(by)
    counts = {v: sum(p.numel() for p in net.parameters()) for v, net in nets.items()}
    plain = {v: sum(p.numel() for p in deployed(net).parameters()) for v, net in nets.items()}

    def counted(key: str, title: str, of: Callable[[Training], float], digits: int = 0) -> Quantity:
        return Quantity(key, title, counted=lambda run, column: of(run), digits=digits)

    one = runs[first]
    return Experiment(
        name="",
        paper="",
        title=f"{one.model} on {one.data}",
        measures=(
            last,
            best,
            counted("epochs", "epochs", lambda run: run.recipe.epochs),
            counted("training_parameters", "parameters, training", lambda r: counts[r.variant]),
            counted("deployed_parameters", "parameters, deployed", lambda r: plain[r.variant]),
            counted("step", "training step (ms)", lambda run: 1e3 * times[run.variant], 2),
            counted(
                "step_ratio", f"step / {first}'s", lambda r: times[r.variant] / times[first], 2
            ),
            replace(on_training, section=None),
            *_PER_RUN,
        ),
        lines=tuple(Line(variant, {PRESET: run}) for variant, run in runs.items()),
        presets={PRESET: Preset(seeds)},
        claims=tuple(
            Claim(
                f"{variant} and {first} differ in {by.name} after the last epoch.",
                told_apart(variant, first, last.key, by=by),
            )
            for variant in others
        ),
        baseline=first,
        notes=_NOTES.format(
            what=_SHARES if by.name == ACCURACY.name else "", match=_MATCHED[match]
        ),
    )


_MATCHED = {
    "epochs": "All variants train the same number of epochs.",
    "time": "All variants have the time of the slowest: faster ones train more epochs.",
}
_SHARES = "Shares of test images classified right. "
_NOTES = (
    "{what}Go by the last epoch: the best one is chosen on the test examples, which flatters every "
    "variant. {match}\n\nStep times are medians of training "
    "steps of all variants taken in turn. Folding weights costs the same whatever the size of "
    "batch and images, so that its share is largest where both are small."
)


def stretched(recipe: Recipe, epochs: int) -> Recipe:
    """The recipe in another number of epochs, milestones and warm-up in proportion."""
    factor = epochs / recipe.epochs
    return replace(
        recipe,
        epochs=epochs,
        milestones=tuple(round(milestone * factor) for milestone in recipe.milestones),
        warmup_epochs=round(recipe.warmup_epochs * factor),
    )


def _begin(
    folder: Path,
    configuration: dict[str, Any],
    nets: Mapping[str, nn.Module],
    task: Task,
    recipe: Recipe,
) -> dict[str, float]:
    """Quantity step times, once a comparison; note them and this session in run.json."""
    path = folder / checkpoint.RUN
    record: dict[str, Any] = {"configuration": configuration, "sessions": []}
    if check_same(configuration, folder):
        record = read_record(path, ComparisonRecord)
    else:
        record["step_seconds"] = step_seconds(nets, task, recipe)
    record["sessions"].append(session(device_of_fit()))
    write_record(path, record)
    return record["step_seconds"]


def _deployed_section(shipped: Deployed) -> Section:
    return Section(
        "The deployed network",
        f"{shipped}\n\ndeployed/ holds the plain network as model.safetensors and model.onnx; "
        "model.json says how to feed it.",
    )
