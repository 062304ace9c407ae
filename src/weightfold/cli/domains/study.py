"""What `weightfold domains train` does: nets of every strategy and seed, trained and saved."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import nn

import weightfold
from weightfold.cli.domains.inputs import (
    BUNDLE,
    about,
    check_sizes,
    read_domains,
    read_weights,
    seeded_model,
    take_weights,
)
from weightfold.cli.domains.options import Sharing
from weightfold.cli.domains.train import Train
from weightfold.core.manifest import MANIFEST
from weightfold.core.store import file_stem
from weightfold.data import Augment, Dataset
from weightfold.lab.domains_study_page import INDEPENDENT, Outcome
from weightfold.methods.share.net import SharedNet
from weightfold.methods.share.plan import Plan, plan_sharing
from weightfold.methods.share.verb import share
from weightfold.records import read_record
from weightfold.tasks.registry import as_task
from weightfold.train import History
from weightfold.train.domains import DomainOptions, fit_domains
from weightfold.train.domains.batches import DomainBatches
from weightfold.train.domains.check import check_all


@dataclass(frozen=True)
class Study:
    """Everything read and checked, before anything is trained.

    Attributes:
        asked_for: The command.
        datasets: Domain -> data.
        strategies: Names, in the order of the page.
        plans: (strategy, seed) -> plan; none of independent networks.
        weights: State to start from; None: initial weights.
    """

    asked_for: Train
    datasets: dict[str, Dataset]
    strategies: tuple[str, ...]
    plans: dict[tuple[str, int], Plan]
    weights: dict[str, torch.Tensor] | None

    @classmethod
    def of(cls, asked: Train) -> "Study":
        """Read and check what a command asks for.

        Raises:
            ValueError: An option is out of range or contradicts another; a plan of another model;
                or as `read_domains`, `plan_sharing` and `take_weights`.
            FileNotFoundError: A data set, plan or file of weights is missing.
        """
        _check(asked)
        given = None if asked.plan is None else _read_plan(asked.plan)
        weights = None if asked.weights is None else read_weights(asked.weights)
        datasets = _read_data(asked)
        shape = next(iter(datasets.values())).image_shape
        classes = max(dataset.num_classes for dataset in datasets.values())
        model = seeded_model(asked.model, classes=classes, channels=shape[0])
        check_sizes(model, datasets, asked.model)
        strategies = asked.strategies if given is None else (str(given.choice["strategy"]),)
        study = cls(asked, datasets, strategies, _plans(asked, given, model, shape), weights)
        for plan in study.plans.values():
            plan.account(study.heads)
        if weights is not None:
            head = next(iter(study.plans.values()), _alone(model, shape)).head
            if left := take_weights(model, weights, head):
                print(f"of {asked.weights} {', '.join(left)} are left out: other classes")
        return study

    @property
    def title(self) -> str:
        """Of the page."""
        return f"{self.asked_for.model}: {', '.join(self.datasets)}"

    @property
    def heads(self) -> dict[str, int]:
        """Domain -> number of classes."""
        return {name: dataset.num_classes for name, dataset in self.datasets.items()}

    @property
    def bundles(self) -> list[Path]:
        """Where the nets of the first seed are."""
        shared = [strategy for strategy in self.strategies if strategy != INDEPENDENT]
        return [self.asked_for.folder / strategy / BUNDLE for strategy in shared]

    @property
    def asked(self) -> dict[str, Any]:
        """The command, as JSON values; the fraction of own weights even where it was not said."""
        asked = self.asked_for
        if asked.plan is None:
            asked = replace(asked, sharing=asked.sharing.settled)
        return json.loads(json.dumps(asdict(asked), default=str))

    def train(self) -> list[Outcome]:
        """Train what is not trained yet; everything that was asked for, strategy by strategy."""
        outcomes = []
        for strategy in self.strategies:
            for seed in _seeds(self.asked_for):
                print(f"{strategy}, seed {seed}", flush=True)
                independent = strategy == INDEPENDENT
                outcomes.append(self._alone(seed) if independent else self._shared(strategy, seed))
        return outcomes

    def _shared(self, strategy: str, seed: int) -> Outcome:
        plan = self.plans[strategy, seed]
        net = share(self._model(seed, plan.head), self.heads, plan, seed=seed)
        net.about.update(
            {name: about(self.asked_for.model, d) for name, d in self.datasets.items()}
        )
        home = self.asked_for.folder / strategy
        history = self._fit(net, self.datasets, home / f"seed{seed}", seed, strategy, plan)
        if seed == self.asked_for.seed and not (home / BUNDLE / MANIFEST).exists():
            weightfold.save(net, home / BUNDLE)
        cost = plan.account(self.heads)
        return Outcome(
            strategy=strategy,
            seed=seed,
            histories=dict.fromkeys(self.heads, history),
            parameters=cost.total.parameters,
            bytes=cost.total.bytes,
            shared_bytes=cost.shared.bytes,
            weights_share=plan.weights_share,
            macs_share=plan.macs_share,
        )

    def _alone(self, seed: int) -> Outcome:
        """A network for each domain; what a net of that one domain is."""
        histories, parameters, size = {}, 0, 0
        steps = self._steps(seed)
        for name, dataset in self.datasets.items():
            heads = {name: dataset.num_classes}
            plan = _alone(self._plain(seed), dataset.image_shape)
            net = share(self._model(seed, plan.head), heads, plan, seed=seed)
            home = self.asked_for.folder / INDEPENDENT / file_stem(name) / f"seed{seed}"
            joint = replace(
                self.asked_for.joint,
                sampler="all",
                temperature=None,
                loss_weights=None,
                epoch=steps[name],
            )
            data = {name: dataset}
            histories[name] = self._fit(net, data, home, seed, INDEPENDENT, plan, joint)
            total = plan.account(heads).total
            parameters, size = parameters + total.parameters, size + total.bytes
        return Outcome(INDEPENDENT, seed, histories, parameters, size, 0, 1.0, 1.0)

    def _steps(self, seed: int) -> dict[str, int]:
        """Domain -> batches of it that an epoch of joint training has, on average."""
        asked = self.asked_for
        batches, sizes = {}, {}
        for name, dataset in self.datasets.items():
            task = as_task(dataset).hold_out(asked.validation, seed)
            batches[name] = task.batches("train", batch_size=asked.recipe.batch_size, seed=seed)
            sizes[name] = len(task.dataset.train)
        epochs = asked.recipe.epochs
        feed = DomainBatches(batches, sizes, asked.joint, seed, epochs)
        turns = [names for epoch in range(epochs) for names in feed.turns(epoch)]
        counts = {name: sum(name in names for names in turns) for name in batches}
        return {name: max(1, round(count / epochs)) for name, count in counts.items()}

    def _fit(
        self,
        net: SharedNet,
        datasets: Mapping[str, Dataset],
        folder: Path,
        seed: int,
        strategy: str,
        plan: Plan,
        joint: Any = None,
    ) -> History:
        asked = self.asked_for
        unflipped = Augment(asked.recipe.crop_padding, flip=False)
        tasks = {name: as_task(dataset) for name, dataset in datasets.items()}
        for name in tasks.keys() & set(asked.unflipped):
            tasks[name] = replace(tasks[name], augment=unflipped)
        return fit_domains(
            net,
            tasks,
            asked.recipe,
            folder=folder,
            seed=seed,
            device=asked.device,
            options=DomainOptions(
                joint=joint or asked.joint,
                validation=asked.validation,
                precision=asked.precision,
                devices=asked.devices,
                tensorboard=asked.tensorboard,
                about={
                    "model": asked.model,
                    "strategy": strategy,
                    "domains": [
                        t for t in asked.domains if t.partition("=")[0].strip() in datasets
                    ],
                    "own": _digest(json.dumps(plan.to_json()["own"]).encode()),
                    "weights": asked.weights and _digest(asked.weights.read_bytes()),
                },
            ),
        )

    def _plain(self, seed: int) -> nn.Module:
        shape = next(iter(self.datasets.values())).image_shape
        classes = max(self.heads.values())
        return seeded_model(self.asked_for.model, classes=classes, channels=shape[0], seed=seed)

    def _model(self, seed: int, head: str) -> nn.Module:
        """The network every domain starts from."""
        model = self._plain(seed)
        if self.weights is not None:
            take_weights(model, self.weights, head)
        return model


def _alone(model: nn.Module, shape: tuple[int, ...]) -> Plan:
    """A plan for a net of one domain: what it owns is all one."""
    return plan_sharing(model, "bottom", 0, example_input=torch.zeros(1, *shape))


def _seeds(asked: Train) -> range:
    return range(asked.seed, asked.seed + asked.seeds)


def _check(asked: Train) -> None:
    """Refuse options that contradict each other."""
    if asked.seeds < 1:
        raise ValueError(f"seeds={asked.seeds}; give at least 1")
    if not asked.strategies or len(set(asked.strategies)) < len(asked.strategies):
        raise ValueError(f"strategies={asked.strategies}; name at least one, each once")
    if asked.plan is not None and (asked.sharing, asked.strategies) != (Sharing(), ("bottom",)):
        raise ValueError("--plan says what the domains own; leave the options of planning out")
    sized = [strategy for strategy in asked.strategies if strategy != INDEPENDENT]
    if asked.sharing.num_filters is not None and len(sized) > 1:
        raise ValueError(
            f"num_filters={asked.sharing.num_filters} is of another size in each of "
            f"{', '.join(sized)}; compare them by --fraction"
        )


def _read_data(asked: Train) -> dict[str, Dataset]:
    """The domains, and whether the options that name domains name them."""
    datasets = read_domains(asked.domains, asked.data_root)
    if unknown := [name for name in asked.unflipped if name not in datasets]:
        raise KeyError(f"unflipped has {unknown[0]!r}; the domains are {', '.join(datasets)}")
    if isinstance(asked.joint.loss_weights, Mapping):
        check_all(asked.joint.loss_weights, datasets, "loss_weights")
    return datasets


def _plans(
    asked: Train, given: Plan | None, model: nn.Module, shape: tuple[int, ...]
) -> dict[tuple[str, int], Plan]:
    """(strategy, seed) -> plan."""
    example, seeds = torch.zeros(1, *shape), _seeds(asked)
    if given is not None:
        given.check(model)
        return {(str(given.choice["strategy"]), seed): given for seed in seeds}
    return {
        (strategy, seed): asked.sharing.plan(model, strategy, example, seed)
        for strategy, seed in product(asked.strategies, seeds)
        if strategy != "independent"
    }


def _read_plan(path: Path) -> Plan:
    try:
        return Plan.from_json(read_record(path))
    except ValueError as error:
        raise ValueError(f"plan={str(path)!r}: {error}; give what 'plan --out' wrote") from error


def _name(domain: str) -> str:
    return domain.partition("=")[0].strip()


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
