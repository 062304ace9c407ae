"""`wf.inspect`: the probes that fit a time budget, and one page of what they found."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from tempfile import mkdtemp
from time import monotonic
from typing import Any, TypedDict

import torch

from weightfold.data import Dataset
from weightfold.data.pairs import Data, as_dataset
from weightfold.files import locked
from weightfold.lab.answers import TITLES, answers
from weightfold.lab.budget import DEMANDS, Demand, Pace, Sizes, fit
from weightfold.lab.experiment import Experiment, Line, Preset
from weightfold.lab.pace import pace_of
from weightfold.lab.page import write_results
from weightfold.lab.probing import Probing, as_options, measure_in, read_finding
from weightfold.lab.results import Outcome, Results
from weightfold.lab.run import plain
from weightfold.probes.finding import Finding
from weightfold.probes.models import Model, net_of
from weightfold.probes.registry import probes
from weightfold.records import read_record, write_record
from weightfold.report.page import Section
from weightfold.train.checkpoint import RUN
from weightfold.train.options import Options
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, digest, structure
from weightfold.train.together import Run, fit_together

PLAN = "plan.json"
LEARNING_RATES = (0.1, 0.03, 0.01, 0.003)
"""Of sgd with momentum, tried on the plain network for a moment before anything is measured."""

FEWEST_STEPS = 8
"""In which learning rates can be told apart."""

PRESET = "inspection"
GRACE = 1.25
"""A probe is stopped when the whole inspection has taken so many times its budget."""


@dataclass(frozen=True)
class Inspection:
    """What an inspection found.

    Attributes:
        findings: Probe -> what it found, as far as there was time.
        left_out: Probe -> why it was not run, or not to its end.
        page: The page that tells all of it.
    """

    findings: Mapping[str, Finding]
    left_out: Mapping[str, str]
    page: Path


def inspect(
    net: Model,
    data: Data,
    *,
    minutes: float = 10.0,
    folder: Path | str | None = None,
    title: str = "",
    device: str = "auto",
    progress: bool = True,
) -> Inspection:
    """Ask a network and its data what the probes can tell within a time budget.

    >>> import weightfold as wf
    >>> net = wf.nets.build("digitnet", num_classes=10, in_channels=1)
    >>> data = wf.data.load("digits,limit=100")
    >>> found = wf.inspect(net, data, minutes=0.02, progress=False)
    >>> found.page.name
    'index.html'

    How many parameters it needs, how many weights can be pruned, which layers matter, and whether
    it learns noise by heart. The network is timed first; then each probe gets a share of the time
    that is left and the largest sizes that fit it, which plan.json records. What does not fit is
    named with the time it needs. The page is written anew after each probe. The same call on the
    same folder goes on where it was stopped, and with what there was no time for.

    Args:
        net: A module, whose present weights all networks start from, or a function that makes the
            network of a seed; left unchanged. It is trained anew for each probe.
        data: Dataset, a Dataset, or a pair (training set, held-out set).
        minutes: To be used by this call, above 0; a probe that takes longer than expected is
            stopped after `GRACE` times as much.
        folder: Gets the page index.html, plan.json, and a folder for each probe; None: a temporary
            one.
        title: Of the page; "": the network's class and the data's name.
        device: To compute on; "auto": an accelerator if there is one.
        progress: Show a bar for the probe that is running.

    Raises:
        FileExistsError: The folder holds the inspection of another network or other data, or
            another process inspects in it.
        TypeError: `net` or `data` is no such thing.
        ValueError: `minutes` is not above 0, or the data has one class.
    """
    if not minutes > 0:
        raise ValueError(f"minutes={minutes}: give how long it may take, above 0")
    samples = as_dataset(data)
    first = net_of(net, 0)
    name = type(first).__name__
    about = {
        "network": name,
        "structure": structure(first),
        "weights": digest(first),
        "data": samples.digest,
    }
    if device == "auto":
        device = str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    folder = Path(mkdtemp(prefix="weightfold-") if folder is None else folder)
    configuration = {"inspected": about}
    check_same(configuration, folder)
    end = monotonic() + 60 * minutes
    run = _Inspecting(
        model=net,
        samples=samples,
        folder=folder,
        title=title or f"{name} on {samples.name}",
        device=device,
        progress=progress,
        minutes=minutes,
        end=end,
        deadline=end + 60 * minutes * (GRACE - 1),
    )
    with locked(folder):
        there, path = check_same(configuration, folder), folder / PLAN
        plan = read_record(path, PlanRecord) if there and path.exists() else {}
        run.begin(plan, 60 * minutes)
        write_record(folder / RUN, {"configuration": configuration})
        run.all()
        return Inspection(run.findings, run.left_out, run.write_page())


class PlanRecord(TypedDict):
    """What was planned before."""

    pace: Pace
    lr: float | None
    sizes: dict[str, Sizes]


@dataclass
class _Inspecting:
    """An inspection under way."""

    model: Model
    samples: Dataset
    folder: Path
    title: str
    device: str
    progress: bool
    minutes: float
    end: float
    deadline: float
    lr: float | None = None
    pace: Pace = field(init=False)
    sizes: dict[str, Sizes] = field(default_factory=dict)
    findings: dict[str, Finding] = field(default_factory=dict)
    sections: dict[str, Section] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def begin(self, plan: Mapping[str, Any], seconds: float) -> None:
        """Take what was planned before; time the network if more is to be planned."""
        self.sizes = {name: Sizes(**sizes) for name, sizes in plan.get("sizes", {}).items()}
        if len(self.sizes) == len(DEMANDS):
            self.pace, self.lr = Pace(**plan["pace"]), plan["lr"]
            return
        with progress_bar(self.progress, "timing the network") as show:
            show(Progress(0, 2))
            self.pace = pace_of(self.model, self.samples, self.device)
            show(Progress(1, 2, "learning rate"))
            self.lr = plan["lr"] if plan else self._learning_rate(0.05 * seconds)
            show(Progress(2, 2))
        self.write_plan()

    def _learning_rate(self, seconds: float) -> float | None:
        """The largest of `LEARNING_RATES` that is as good as any after some steps.

        None, each recipe's own, if there is no time for `FEWEST_STEPS`.
        """
        batch = min(32, len(self.samples.train))
        one = self.pace.step + batch * self.pace.example
        steps = min(200, int(seconds / len(LEARNING_RATES) / max(one, 1e-6)))
        if steps < FEWEST_STEPS:
            return None
        losses: dict[float, float] = {}
        for lr in LEARNING_RATES:
            recipe = Recipe(
                batch_size=batch, lr=lr, schedule="constant", crop_padding=0, flip=False
            )
            options = Options(measure=(), every=steps // 4, steps=steps)
            net = net_of(self.model, 0)
            run = fit_together(
                {"net": Run(net, self.samples, 0)}, recipe, device=self.device, options=options
            )["net"]
            if not run.failed:
                losses[lr] = run.last("loss", "train")
        good = 1.1 * min(losses.values(), default=0.0)  # near enough to the lowest training loss
        return max((lr for lr in losses if losses[lr] <= good), default=LEARNING_RATES[-1])

    def write_plan(self) -> None:
        sizes = {name: asdict(one) for name, one in self.sizes.items()}
        pace = asdict(self.pace)
        write_record(self.folder / PLAN, {"pace": pace, "lr": self.lr, "sizes": sizes})

    def write_page(self) -> Path:
        """The page of an experiment whose lines are the probes."""
        runs = {name: self.call(name, self.sizes[name]) for name in TITLES if name in self.sizes}
        lines = tuple(
            Line(heading, {PRESET: runs[name]})
            if name in self.findings
            else Line(heading, not_run=self.left_out[name])
            for name, heading in TITLES.items()
        )
        outcomes = {
            heading: (Outcome(runs[name], self.findings[name], self.findings[name].sessions),)
            for name, heading in TITLES.items()
            if name in self.findings
        }
        experiment = Experiment(
            name="",
            paper="",
            title=self.title,
            measures=(),
            lines=lines,
            presets={PRESET: Preset(1)},
            answer=lambda _: answers(self.findings, self.left_out, self.sizes, self.pace, self.lr),
            sections=lambda *_: [self.sections[n] for n in TITLES if n in self.sections],
        )
        asked = {"title": self.title, "minutes": self.minutes}
        return write_results(Results(experiment, PRESET, outcomes), self.folder, asked=asked)

    def found(self, name: str, finding: Finding) -> None:
        """Take a finding and draw its figure, once."""
        self.findings[name] = finding
        self.sections[name] = finding.section(self.folder / name, TITLES[name])

    def all(self) -> None:
        """Finished probes are read, begun ones gone on with; the others get what time is left."""
        for name in DEMANDS:
            if (found := read_finding(self.folder / name)) is not None:
                self.found(name, found)
            else:
                self.left_out[name] = "not run yet"
        self.write_page()
        for whole in (False, True):  # at last all the time that is left, whatever the share
            for name, demand in DEMANDS.items():
                if name not in self.findings and not self.left_out[name].startswith("failed"):
                    self._one(name, demand, 1.0 if whole else demand.share)
                    self.write_page()

    def _one(self, name: str, demand: Demand, share: float) -> None:
        """Run a probe if there is time."""
        if name not in self.sizes:
            sizes, seconds = fit(demand, self.pace, share * (self.end - monotonic()))
            if sizes is None:
                self.left_out[name] = f"not run: needs about {_minutes(seconds)}"
                return
            self.sizes[name] = sizes
            self.write_plan()
        if monotonic() > self.deadline:
            return
        try:
            self.found(name, self.measure(name, self.sizes[name]))
        except _TimeUp:
            self.left_out[name] = "unfinished when the time was up; the same call goes on with it"
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            self.left_out[name] = f"failed: {error}"
        else:
            del self.left_out[name]

    def call(self, name: str, sizes: Sizes) -> Probing:
        """The call of a probe with the sizes that its time allows."""
        recipe = probes()[name].recipe or Recipe()
        lr = self.lr if self.lr and recipe.optimizer == "sgd" else recipe.lr
        return Probing(
            name,
            type(net_of(self.model, 0)).__name__,
            f"{self.samples.name}, {sizes.text}",
            options=as_options(sizes.options),
            recipe=replace(recipe, epochs=sizes.epochs, batch_size=sizes.batch_size, lr=lr),
            seeds=sizes.seeds,
        )

    def measure(self, name: str, sizes: Sizes) -> Finding:
        probe, call = probes()[name], self.call(name, sizes)
        arguments = {
            "net": self.model,
            "data": self.samples.limited(sizes.train, sizes.test),
            "recipe": call.recipe,
            **probe.over(sizes.seeds),
            **sizes.options,
        }
        with progress_bar(self.progress, name) as show:
            return measure_in(
                self.folder / name,
                probe,
                arguments,
                about={"sizes": asdict(sizes), "recipe": plain(call.recipe)},
                title=f"{name}: {self.title}",
                device=self.device,
                progress=partial(self._heard, show),
            )

    def _heard(self, show: ProgressCallback, now: Progress) -> None:
        if monotonic() > self.deadline:
            raise _TimeUp
        show(now)


class _TimeUp(Exception):
    """The inspection has taken its time."""


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'' if minutes == 1 else 's'} by itself"
