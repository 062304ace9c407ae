"""`wf.inspect`: the probes that fit a time budget, and one page of what they found."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import median
from time import monotonic, perf_counter
from typing import Any, TypedDict

import torch
from torch import Tensor

from weightfold.data import Dataset
from weightfold.data.pairs import Data, as_dataset
from weightfold.files import locked
from weightfold.lab.inspect_page import TITLES, write_inspection
from weightfold.lab.inspect_plan import DEMANDS, Demand, Pace, Sizes, fit
from weightfold.lab.probe_cell import measure_in, read_finding
from weightfold.methods.subspace.verb import subspace
from weightfold.probes.finding import Finding
from weightfold.probes.layers.batch_norm import running_statistics
from weightfold.probes.layers.units import layer_units
from weightfold.probes.models import Model, net_of
from weightfold.probes.registry import probes
from weightfold.records import read_record, write_record
from weightfold.report.page import Section
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import evaluating
from weightfold.train.checkpoint import RUN
from weightfold.train.options import Options
from weightfold.train.progress import Progress, Tell, telling
from weightfold.train.recipe import Recipe
from weightfold.train.record import check_same, digest, structure
from weightfold.train.strategies.single import Fabric, Single
from weightfold.train.together import Run, device_of, fit_together

PLAN = "plan.json"
LEARNING_RATES = (0.1, 0.03, 0.01, 0.003)
"""Of sgd with momentum, tried on the plain network for a moment before anything is measured."""

FEWEST_STEPS = 8
"""In which learning rates can be told apart."""

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
    model: Model,
    data: Data,
    *,
    minutes: float = 10.0,
    folder: Path | str,
    title: str = "",
    device: str = "auto",
    progress: bool = True,
) -> Inspection:
    """Ask a network and its data what the probes can tell within a time budget.

    How many parameters it needs, how many weights can be pruned, which layers matter, and whether
    it learns noise by heart. The network is timed first; then each probe gets a share of the time
    that is left and the largest sizes that fit it, which plan.json records. What does not fit is
    named with the time it needs. The page is written anew after each probe. The same call on the
    same folder goes on where it was stopped, and with what there was no time for.

    Args:
        model: A module, whose present weights all networks start from, or a function that makes the
            network of a seed; left unchanged. It is trained anew for each probe.
        data: Dataset, a Dataset, or a pair (training set, held-out set).
        minutes: To be used by this call, above 0; a probe that takes longer than expected is
            stopped after `GRACE` times as much.
        folder: Gets the page index.html, plan.json, and a folder for each probe.
        title: Of the page; "": the network's class and the data's name.
        device: To compute on; "auto": an accelerator if there is one.
        progress: Show a bar for the probe that is running.

    Raises:
        FileExistsError: The folder holds the inspection of another network or other data, or
            another process inspects in it.
        TypeError: `model` or `data` is no such thing.
        ValueError: `minutes` is not above 0, or the data has one class.
    """
    if not minutes > 0:
        raise ValueError(f"minutes={minutes}: give how long it may take, above 0")
    samples = as_dataset(data)
    net = net_of(model, 0)
    name = type(net).__name__
    about = {
        "network": name,
        "structure": structure(net),
        "weights": digest(net),
        "data": samples.digest,
    }
    if device == "auto":
        device = str(torch.accelerator.current_accelerator(check_available=True) or "cpu")
    folder = Path(folder)
    configuration = {"inspected": about}
    check_same(configuration, folder)
    end = monotonic() + 60 * minutes
    run = _Run(
        model=model,
        samples=samples,
        folder=folder,
        title=title or f"{name} on {samples.name}",
        device=device,
        progress=progress,
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
class _Run:
    """An inspection under way."""

    model: Model
    samples: Dataset
    folder: Path
    title: str
    device: str
    progress: bool
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
        with telling(self.progress, "timing the network") as tell:
            tell(Progress(0, 2))
            self.pace = _pace(self.model, self.samples, self.device)
            tell(Progress(1, 2, "learning rate"))
            self.lr = plan["lr"] if plan else self._learning_rate(0.05 * seconds)
            tell(Progress(2, 2))
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
        return write_inspection(
            self.folder,
            self.title,
            findings=self.findings,
            sections=self.sections,
            left_out=self.left_out,
            sizes=self.sizes,
            pace=self.pace,
            lr=self.lr,
        )

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
            self.found(name, self._measure(name, self.sizes[name]))
        except _TimeUp:
            self.left_out[name] = "unfinished when the time was up; the same call goes on with it"
        except (ValueError, TypeError, ArithmeticError, RuntimeError) as error:
            self.left_out[name] = f"failed: {error}"
        else:
            del self.left_out[name]

    def _measure(self, name: str, sizes: Sizes) -> Finding:
        probe = probes()[name]
        recipe = probe.recipe or Recipe()
        lr = self.lr if self.lr and recipe.optimizer == "sgd" else recipe.lr
        recipe = replace(recipe, epochs=sizes.epochs, batch_size=sizes.batch_size, lr=lr)
        arguments = {
            "model": self.model,
            "data": self.samples.limited(sizes.train, sizes.test),
            "recipe": recipe,
            **probe.over(sizes.seeds),
            **sizes.options,
        }
        title = f"{name}: {self.title}"
        with telling(self.progress, name) as tell:
            return measure_in(
                self.folder / name,
                probe,
                arguments,
                about={"sizes": asdict(sizes), "recipe": asdict(recipe)},
                title=title,
                device=self.device,
                progress=partial(self._heard, tell),
            )

    def _heard(self, tell: Tell, now: Progress) -> None:
        if monotonic() > self.deadline:
            raise _TimeUp
        tell(now)


class _TimeUp(Exception):
    """The inspection has taken its time."""


def _minutes(seconds: float) -> str:
    minutes = max(1, round(seconds / 60))
    return f"{minutes} minute{'' if minutes == 1 else 's'} by itself"


def _pace(model: Model, samples: Dataset, device: str) -> Pace:
    net = net_of(model, 0)
    units = layer_units(net, samples.normalize(samples.train.inputs[:1]))
    net.to(device)
    count = sum(p.numel() for p in net.parameters() if p.requires_grad)
    few, many = min(16, len(samples.train)), min(64, len(samples.train))
    x = samples.normalize(samples.train.inputs[:many]).to(device)
    y = samples.train.targets[:many].to(device)
    recipe, task = Recipe(lr=1e-4, crop_padding=0, flip=False), as_task(samples)
    fabric = Fabric(accelerator=device_of(device).type, devices=1)
    plain, projected = (
        Single(fabric, one, task, recipe, 0)
        for one in (net, subspace(net, max(1, min(count, count // 100))))
    )

    def step(single: Single, batch: int) -> float:
        single.begin_epoch(0)
        return _seconds(lambda: single.step((x[:batch], y[:batch]), 1e-4).cpu())

    @torch.no_grad()
    def look(x: Tensor) -> Tensor:
        with evaluating(net):
            return net(x)

    short, long = step(plain, few), step(plain, many)
    example = max(0.0, (long - short) / (many - few)) if many > few else short / few
    return Pace(
        step=max(0.0, short - few * example),
        example=example,
        look=_seconds(lambda: look(x).cpu()) / many,
        projection=max(0.0, step(projected, few) - short),
        parameters=count,
        layers=len(units),
        statistics=bool(running_statistics(net)),
        train=len(samples.train),
        test=len(samples.test),
    )


def _seconds(call: Callable[[], object]) -> float:
    """Median time of a call, over about half a second; the first is left out if it was short."""
    times: list[float] = []
    while sum(times) < 0.5 or (len(times) < 4 and sum(times) < 3):
        begin = perf_counter()
        call()
        times.append(perf_counter() - begin)
    return median(times[1:] or times)
