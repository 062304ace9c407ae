"""What a study of domains trains in one backbone, for each strategy and seed."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.core.manifest import MANIFEST
from weightfold.core.part_file import file_stem
from weightfold.core.store import save
from weightfold.data import Augment, Dataset
from weightfold.lab.run import Run
from weightfold.lab.study import INDEPENDENT, Study, StudyRecord
from weightfold.methods.share.net import SharedNet
from weightfold.methods.share.plan import Plan, plan_sharing
from weightfold.methods.share.verb import share
from weightfold.tasks.registry import as_task
from weightfold.train import History, checkpoint
from weightfold.train.domains import DomainOptions, fit_domains
from weightfold.train.domains.batches import DomainBatches
from weightfold.train.domains.bundles import BUNDLE, about
from weightfold.train.domains.check import check_all
from weightfold.train.domains.inputs import check_sizes, read_weights, seeded_model, take_weights
from weightfold.train.domains.joint import Joint
from weightfold.train.progress import ProgressCallback


@dataclass(frozen=True)
class StudyRun(Run):
    """One strategy with one seed; the nets of all domains."""

    strategy: str
    seed: int
    of: "Prepared" = field(compare=False, repr=False)

    @property
    def title(self) -> str:
        """Strategy and seed."""
        return f"{self.strategy}, seed {self.seed}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Strategy and seed."""
        return (self.strategy, f"seed{self.seed}")

    @property
    def folder(self) -> str:
        """A folder a seed in that of the strategy; independent networks lie one deeper."""
        return "/".join(self.parts)

    def folders(self) -> dict[str, str]:
        """Domain -> folder of the run it is trained in."""
        if self.strategy != INDEPENDENT:
            return dict.fromkeys(self.of.datasets, self.folder)
        home, seed = self.strategy, f"seed{self.seed}"
        return {name: f"{home}/{file_stem(name)}/{seed}" for name in self.of.datasets}

    def finished(self, root: Path) -> StudyRecord | None:
        """The record, from the runs' histories; None if one is not finished."""
        read = {f: checkpoint.finished(root / f) for f in self.folders().values()}
        found = {name: read[folder] for name, folder in self.folders().items()}
        if any(history is None for history in found.values()):
            return None
        return self.of.record(self, found)  # type: ignore[arg-type]

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | ProgressCallback = True
    ) -> StudyRecord:
        """Train what is not trained yet; runs that are there are checked to be these.

        Raises:
            FileExistsError: A folder holds another run.
        """
        return self.of.record(self, self.of.train(self, root, bool(progress)))

    def to_json(self, record: StudyRecord) -> Any:
        """Its fields, each history once."""
        runs = list({id(r): r for r in record.histories.values()}.values())
        of = {name: runs.index(run) for name, run in record.histories.items()}
        own = {f.name: getattr(record, f.name) for f in fields(record)}
        return own | {"histories": of, "runs": [run.as_json() for run in runs]}

    def from_json(self, written: Any) -> StudyRecord:
        """The record again."""
        runs = [History.from_json(run) for run in written["runs"]]
        own = {key: value for key, value in written.items() if key != "runs"}
        own["histories"] = {name: runs[index] for name, index in own["histories"].items()}
        return StudyRecord(**own)


@dataclass(frozen=True, eq=False)
class Prepared:
    """A study with everything read and checked, before anything is trained.

    Attributes:
        study: What was asked for.
        datasets: Domain -> data.
        plans: (strategy, seed) -> plan; none of independent networks.
        weights: State to start from; None: initial weights.
        left_out: Tensors of `weights` that are not taken: a classifier of other classes.
    """

    study: Study
    datasets: Mapping[str, Dataset]
    plans: Mapping[tuple[str, int], Plan]
    weights: Mapping[str, Tensor] | None
    left_out: tuple[str, ...]

    @cached_property
    def heads(self) -> dict[str, int]:
        """Domain -> number of classes."""
        return {name: dataset.num_classes for name, dataset in self.datasets.items()}

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the first domain's images."""
        return next(iter(self.datasets.values())).image_shape

    @cached_property
    def strategies(self) -> tuple[str, ...]:
        """In the order of the page."""
        plan = self.study.plan
        return self.study.strategies if plan is None else (str(plan.choice["strategy"]),)

    @property
    def runs(self) -> dict[str, tuple[StudyRun, ...]]:
        """Strategy -> a run a seed."""
        return {
            name: tuple(StudyRun(name, seed, self) for seed in self.study.seeds)
            for name in self.strategies
        }

    def train(self, run: StudyRun, root: Path, progress: bool) -> dict[str, History]:
        """Domain -> the history of its run, trained if it is not."""
        if run.strategy == INDEPENDENT:
            return self._train_alone(run, root, progress)
        plan = self.plans[run.strategy, run.seed]
        net = share(self._model(run.seed, plan.head), self.heads, plan, seed=run.seed)
        net.about.update({n: about(self.study.model, d) for n, d in self.datasets.items()})
        history = self._fit(net, self.datasets, root / run.folder, run, plan, progress)
        bundle = root / run.strategy / BUNDLE
        if run.seed == self.study.seeds[0] and not (bundle / MANIFEST).exists():
            save(net, bundle)
        return dict.fromkeys(self.heads, history)

    def _train_alone(self, run: StudyRun, root: Path, progress: bool) -> dict[str, History]:
        """A network for each domain; what a net of that one domain is."""
        steps, found = self._steps(run.seed), {}
        for name, dataset in self.datasets.items():
            plan = self._alone(name)
            heads = {name: dataset.num_classes}
            net = share(self._model(run.seed, plan.head), heads, plan, seed=run.seed)
            joint = replace(
                self.study.joint,
                sampler="all",
                temperature=None,
                loss_weights=None,
                epoch=steps[name],
            )
            home = root / run.folders()[name]
            found[name] = self._fit(net, {name: dataset}, home, run, plan, progress, joint)
        return found

    def record(self, run: StudyRun, histories: Mapping[str, History]) -> StudyRecord:
        """The histories of a run with what its nets store."""
        if run.strategy == INDEPENDENT:
            totals = [self._alone(n).account({n: c}).total for n, c in self.heads.items()]
            parameters = sum(total.parameters for total in totals)
            return StudyRecord(
                histories, parameters, sum(total.bytes for total in totals), 0, 1.0, 1.0
            )
        plan = self.plans[run.strategy, run.seed]
        cost = plan.account(self.heads)
        return StudyRecord(
            histories,
            parameters=cost.total.parameters,
            bytes=cost.total.bytes,
            shared_bytes=cost.shared.bytes,
            weights_share=plan.weights_share,
            macs_share=plan.macs_share,
        )

    def _fit(
        self,
        net: SharedNet,
        datasets: Mapping[str, Dataset],
        folder: Path,
        run: StudyRun,
        plan: Plan,
        progress: bool,
        joint: Joint | None = None,
    ) -> History:
        study = self.study
        unflipped = Augment(study.recipe.crop_padding, flip=False)
        tasks = {name: as_task(dataset) for name, dataset in datasets.items()}
        for name in tasks.keys() & set(study.unflipped):
            tasks[name] = replace(tasks[name], augment=unflipped)
        return fit_domains(
            net,
            tasks,
            study.recipe,
            folder=folder,
            seed=run.seed,
            device=study.device,
            progress=progress,
            options=DomainOptions(
                joint=joint or study.joint,
                validation=study.validation,
                precision=study.precision,
                devices=study.devices,
                tensorboard=study.tensorboard,
                about={
                    "model": study.model,
                    "strategy": run.strategy,
                    "own": _digest(json.dumps(plan.to_json()["own"]).encode()),
                    "weights": study.weights and _digest(Path(study.weights).read_bytes()),
                },
            ),
        )

    def _steps(self, seed: int) -> dict[str, int]:
        """Domain -> batches of it that an epoch of joint training has, on average."""
        study, batches, sizes = self.study, {}, {}
        for name, dataset in self.datasets.items():
            task = as_task(dataset).hold_out(study.validation, seed)
            batches[name] = task.batches("train", batch_size=study.recipe.batch_size, seed=seed)
            sizes[name] = len(task.dataset.train)
        epochs = study.recipe.epochs
        feed = DomainBatches(batches, sizes, study.joint, seed, epochs)
        turns = [names for epoch in range(epochs) for names in feed.turns(epoch)]
        counts = {name: sum(name in names for names in turns) for name in batches}
        return {name: max(1, round(count / epochs)) for name, count in counts.items()}

    def _alone(self, name: str) -> Plan:
        """A plan for a net of one domain: what it owns is all one."""
        shape = self.datasets[name].image_shape
        return _whole(self._plain(self.study.seeds[0]), shape)

    def _plain(self, seed: int) -> nn.Module:
        classes, channels = max(self.heads.values()), self.shape[0]
        return seeded_model(self.study.model, classes=classes, channels=channels, seed=seed)

    def _model(self, seed: int, head: str) -> nn.Module:
        """The network every domain starts from."""
        model = self._plain(seed)
        if self.weights is not None:
            take_weights(model, self.weights, head)
        return model


def _whole(model: nn.Module, shape: Sequence[int]) -> Plan:
    return plan_sharing(model, "bottom", 0, example_input=torch.zeros(1, *shape))


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def prepare(study: Study, datasets: Mapping[str, Dataset]) -> Prepared:
    """Read and check all that a study needs.

    Args:
        study: What is asked for.
        datasets: Domain -> data.

    Raises:
        FileNotFoundError: The file of weights is missing.
        KeyError: `unflipped` or loss weights name another domain.
        ValueError: An option is out of range or contradicts another; a plan or weights of another
            network; images that the network does not take.
    """
    study.check()
    weights = None if study.weights is None else read_weights(Path(study.weights))
    if unknown := [name for name in study.unflipped if name not in datasets]:
        raise KeyError(f"unflipped has {unknown[0]!r}; the domains are {', '.join(datasets)}")
    if isinstance(study.joint.loss_weights, Mapping):
        check_all(study.joint.loss_weights, datasets, "loss_weights")
    shape = next(iter(datasets.values())).image_shape
    classes = max(dataset.num_classes for dataset in datasets.values())
    model = seeded_model(study.model, classes=classes, channels=shape[0])
    check_sizes(model, datasets, study.model)
    found = Prepared(study, datasets, _plans(study, model, shape), weights, ())
    for plan in found.plans.values():
        plan.account(found.heads)
    if weights is None:
        return found
    head = next(iter(found.plans.values()), _whole(model, shape)).head
    return replace(found, left_out=tuple(take_weights(model, weights, head)))


def _plans(study: Study, model: nn.Module, shape: Sequence[int]) -> dict[tuple[str, int], Plan]:
    """(strategy, seed) -> plan."""
    example = torch.zeros(1, *shape)
    if study.plan is not None:
        study.plan.check(model)
        return {(str(study.plan.choice["strategy"]), seed): study.plan for seed in study.seeds}
    return {
        (name, seed): study.sharing.plan(model, name, example, seed)  # type: ignore[arg-type]
        for name, seed in product(study.strategies, study.seeds)
        if name != INDEPENDENT
    }
