"""The networks of a lottery ticket experiment, trained level by level."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path

import torch
from torch import Tensor, nn

from weightfold.core.charted import Charted
from weightfold.core.copying import copied
from weightfold.methods.mask.verb import mask
from weightfold.probes.models import Model, fresh, net_of
from weightfold.probes.tickets.options import TicketOptions
from weightfold.probes.tickets.outcomes import TITLES, Kind, Outcome
from weightfold.probes.tickets.prune import Masks, Pruning, full_masks, random_masks, share
from weightfold.tasks.task import Task
from weightfold.train.callbacks import Callback, KeepWeights
from weightfold.train.history import History, Row
from weightfold.train.loop import REMEDY, NonFiniteLoss
from weightfold.train.progress import Progress, ProgressCallback
from weightfold.train.recipe import Recipe
from weightfold.train.seeding import mixed_seed
from weightfold.train.starts import Start, begin
from weightfold.train.together import SIDE_BY_SIDE, Run, fit_together


@dataclass(frozen=True)
class _Network:
    """One to be trained: what it is, as in `Outcome`, and its start."""

    kind: Kind
    seed: int
    net: nn.Module
    remaining: float
    draw: int = 0

    @property
    def name(self) -> str:
        end = f"-{self.draw}" if self.kind == "random" else ""
        return f"{self.kind}-{self.seed}{end}"


@dataclass
class Experiment:
    """Trains the full networks, then the tickets and controls of a level at a time.

    Attributes:
        net: As of `lottery_ticket`, like `recipe`, `seeds` and `device`.
        task: Whose data has a validation set.
        options: With `random_trials` as a number.
        pruning: What a level prunes.
        names: Tensors that are pruned.
        recipe: Of every network.
        seeds: One a trial.
        folder: Holds a folder for each level; None: nothing is written.
        device: To train on.
        show: Called with how far the experiment is.
        outcomes: Of every network trained to the end so far.
        failures: A sentence on each of the others.
        masks: (level, seed) -> the mask of each ticket trained to the end.
        starts: Seed -> network that the trial's tickets start from.
    """

    net: Model
    task: Task
    options: TicketOptions
    pruning: Pruning
    names: tuple[str, ...]
    recipe: Recipe
    seeds: tuple[int, ...]
    folder: Path | None
    device: torch.device
    show: ProgressCallback
    outcomes: list[Outcome] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    masks: dict[tuple[int, int], Masks] = field(default_factory=dict)
    starts: dict[int, nn.Module] = field(default_factory=dict)
    _trained: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    _before: dict[int, Masks] = field(default_factory=dict)
    _done: int = 0

    @property
    def random_trials(self) -> int:
        """Networks with random masks at each level."""
        return self.options.random_trials or len(self.seeds)

    @property
    def networks(self) -> int:
        """How many there will be."""
        trials = len(self.seeds)
        return trials + self.options.rounds * (2 * trials + self.random_trials)

    def run(self) -> None:
        """Train all, level after level, until no ticket is left to go on with.

        Raises:
            NonFiniteLoss: No full network was trained to the end.
        """
        self.full()
        for level in range(1, self.options.rounds + 1):
            if not self.level(level):
                break

    def full(self) -> None:
        """Train the full network of each trial.

        Raises:
            NonFiniteLoss: None was trained to the end.
        """
        nets = {seed: net_of(self.net, seed).cpu() for seed in self.seeds}
        self.starts = {seed: copied(net) for seed, net in nets.items()}
        networks = [_Network("full", seed, net, 1.0) for seed, net in nets.items()]
        kept: list[KeepWeights] = []
        rewind = self.options.rewind

        def keep() -> KeepWeights:
            kept.append(KeepWeights([rewind]))
            return kept[-1]

        finished = self._train(0, networks, self.options.steps, callbacks=(keep,) if rewind else ())
        if not finished:
            raise NonFiniteLoss(
                f"no full network was trained to the end: {'; '.join(self.failures)}; {REMEDY}"
            )
        for name, tensors in (item for one in kept for item in one.state.items()):
            begin(self.starts[int(name.removeprefix("full-"))], Start(tensors[rewind]))
        self._take(finished)
        self._before = {seed: full_masks(weights) for seed, weights in self._trained.items()}

    def level(self, level: int) -> bool:
        """Prune, then train tickets and controls, all trials together.

        Args:
            level: From 1, one after another.

        Returns:
            Whether there is a ticket to go on with.
        """
        masks = {
            seed: self.pruning.masks(level, weights, self._before[seed])
            for seed, weights in self._trained.items()
        }
        rewound, anew = self._networks(level, masks)
        end = self.outcomes[0].last_iteration
        if rewind := self.options.rewind:
            finished = self._train(level, rewound, end - rewind, begin=rewind)
            self._train(level, anew, end, "-fresh")
        else:
            finished = self._train(level, [*rewound, *anew], end)
        tickets = [network for network in finished if network.kind == "ticket"]
        self.masks |= {(level, network.seed): masks[network.seed] for network in tickets}
        if self.pruning.method == "iterative":
            self._before = masks
            self._take(tickets)
        return bool(tickets)

    def _networks(
        self, level: int, masks: Mapping[int, Masks]
    ) -> tuple[list[_Network], list[_Network]]:
        """Those that start from the trials' own weights, and those drawn anew."""
        rewound, anew = [], []
        for seed, chosen in masks.items():
            left = share(chosen)
            rewound.append(_Network("ticket", seed, sparse(self.starts[seed], chosen), left))
            drawn = fresh(self.net, mixed_seed("control", seed, level) % 2**31).cpu()
            anew.append(_Network("fresh", seed, sparse(drawn, chosen), left))
        for index in range(self.random_trials):
            draw, trial = divmod(index, len(self.starts))
            seed = list(self.starts)[trial]
            if seed in masks:
                other = random_masks(masks[seed], mixed_seed("mask", seed, level, draw))
                net = sparse(self.starts[seed], other)
                rewound.append(_Network("random", seed, net, share(other), draw))
        return rewound, anew

    def _train(
        self,
        level: int,
        networks: list[_Network],
        steps: int | None,
        suffix: str = "",
        *,
        begin: int = 0,
        callbacks: tuple[Callable[[], Callback], ...] = (),
    ) -> list[_Network]:
        """Those that were trained to the end; notes outcomes and failures of all."""
        expected = steps or self.recipe.epochs * max(
            1, len(self.task.dataset.train) // self.recipe.batch_size
        )
        measure = self.task.measure
        at = dict.fromkeys([network.name for network in networks], 0.0)

        def shown(name: str, row: Row) -> None:
            at[name] = min(1.0, (row.step or 0) / expected)
            text = f"level {level}, {name}: test {measure.text(row.get(f'test_{measure.name}'))}"
            self.show(Progress(self._done + sum(at.values()), self.networks, text))

        runs = fit_together(
            {n.name: Run(n.net, self.task, n.seed) for n in networks},
            self.recipe,
            folder=None if self.folder is None else self.folder / f"level-{level:02}{suffix}",
            together=self.options.together,
            device=self.device,
            progress=shown,
            options=replace(
                SIDE_BY_SIDE,
                measure=("validation", "test"),
                every=self.options.every,
                steps=steps,
                callbacks=callbacks,
            ),
        )
        self._done += len(networks)
        finished = []
        for network, run in zip(networks, runs.values(), strict=True):
            if run.failed:
                self.failures.append(
                    f"the {TITLES[network.kind]} of trial {network.seed} at "
                    f"{network.remaining:.1%} of weights: {run.failed}"
                )
            else:
                self.outcomes.append(_outcome(network, run, level, begin))
                finished.append(network)
        return finished

    def _take(self, networks: list[_Network]) -> None:
        """Note the trained weights of each trial, to be pruned."""
        self._trained = {}
        for network in networks:
            net = network.net.deploy() if isinstance(network.net, Charted) else network.net
            tensors = dict(net.named_parameters())
            self._trained[network.seed] = {n: tensors[n].detach().cpu() for n in self.names}


def sparse(net: nn.Module, masks: Mapping[str, Tensor]) -> Charted:
    """The network with the masked weights at zero, trained in those that survive alone.

    Args:
        net: A plain module; left unchanged.
        masks: Tensor name -> bool mask.
    """
    return mask(net, masks, live=True)


def _outcome(network: _Network, run: History, level: int, begin: int) -> Outcome:
    measured = [row for row in run.rows if isfinite(row["validation_loss"])]
    best = min(measured, key=lambda row: row["validation_loss"])
    name = run.measure.name
    return Outcome(
        kind=network.kind,
        level=level,
        seed=network.seed,
        draw=network.draw,
        remaining=network.remaining,
        iteration=begin + (best.step or 0),
        last_iteration=begin + (run.rows[-1].step or 0),
        value=best[f"test_{name}"],
        final_value=run.last(),
        train_value=run.rows[-1].get(f"train_{name}"),
        seconds=run.seconds,
        curve=tuple(
            (begin + (row.step or 0), row["validation_loss"], row[f"test_{name}"])
            for row in run.rows
        ),
    )
