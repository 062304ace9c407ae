"""The runs of the relax protocol: the convolutional network, those set free, one from scratch."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from weightfold.codec import decode, encode
from weightfold.core.tensor_file import write_tensors
from weightfold.data import Dataset
from weightfold.methods.embed.distance import deviation, fair_learning_rate
from weightfold.methods.embed.layers import DenseConv, embedded_layers
from weightfold.methods.embed.verb import embed, lift
from weightfold.probes.relax.lasso import BetaLasso
from weightfold.probes.relax.measurements import Point, State, accuracy, measure_state
from weightfold.probes.relax.options import RelaxOptions
from weightfold.records import read_record, write_record
from weightfold.tasks.registry import as_task
from weightfold.train.callbacks import Callback
from weightfold.train.context import Context
from weightfold.train.history import History
from weightfold.train.loop import NonFiniteLoss
from weightfold.train.options import Options
from weightfold.train.recipe import Recipe
from weightfold.train.single import fit
from weightfold.train.starts import Start

Tensors = Mapping[str, Tensor]
SCRATCH = "scratch.safetensors"
HEATMAPS = (0.0, 0.11, 0.78)
"""Shares of the training at which filters are kept: the paper's epochs 0, 11 and 78 of 100."""


@dataclass(frozen=True)
class Line:
    """Networks on the line between two, in weight space.

    Attributes:
        ends: What lies at 0 and at 1: "CNN", "eFCN" or "FCN".
        accuracy: On the test set, evenly spaced.
        local: Deviation from local weights.
    """

    ends: tuple[str, str]
    accuracy: tuple[float, ...]
    local: tuple[float, ...]


@dataclass(frozen=True)
class Filter:
    """A first-layer filter in the larger space, at the top left of the image.

    Attributes:
        epoch: Epochs since the relax time.
        values: Root mean square over channels, by row and column of the image.
    """

    epoch: int
    values: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Run:
    """A network in the larger space.

    Attributes:
        seed: Of it.
        relaxed_at: Epoch of the convolutional network; None: from scratch.
        curve: After each epoch, from 0.
        before: At the relax time; None where training failed.
        after: After training.
        filters: Of the first layer; of dense networks.
        paths: To the convolutional network's end and to the one from scratch.
        failed: Why training ended early; "".
    """

    seed: int
    relaxed_at: int | None
    curve: tuple[Point, ...] = ()
    before: State | None = None
    after: State | None = None
    filters: tuple[Filter, ...] = ()
    paths: tuple[Line, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Protocol:
    """What all runs of a seed have in common.

    Attributes:
        samples: Data, on the device.
        recipe: Of the convolutional network.
        options: Of the larger space.
        seed: Of the runs.
        device: To train on.
        folder: Of the seed.
    """

    samples: Dataset
    recipe: Recipe
    options: RelaxOptions
    seed: int
    device: str
    folder: Path

    @property
    def steps_per_epoch(self) -> int:
        """Optimizer steps of an epoch."""
        batches = as_task(self.samples).batches("train", batch_size=self.recipe.batch_size)
        return len(batches)

    @property
    def relaxed(self) -> Recipe:
        """The recipe in the larger space: constant rate, nothing else, as the paper."""
        chosen = self.options
        return replace(
            self.recipe, epochs=chosen.epochs, optimizer=chosen.optimizer, lr=chosen.lr,
            momentum=0.0, nesterov=False, weight_decay=0.0, decay_on="psi", schedule="constant",
            milestones=(), warmup_epochs=0, clip_norm=None, reset_momentum_each_epoch=False,
        )  # fmt: skip

    def train(self, net: nn.Module, start: Start | None, keep: list[Callback]) -> History:
        """Train a network of the larger space."""
        chosen = self.options
        makers: list[Callable[[], Callback]] = [lambda one=one: one for one in keep]
        if chosen.lasso:
            makers.append(lambda: BetaLasso(chosen.lasso))
        factors = fair_learning_rate(net) if chosen.rate == "fair" else {}
        return fit(
            net,
            self.samples,
            self.relaxed,
            seed=self.seed,
            device=self.device,
            progress=False,
            options=Options(
                at_start=True,
                measure=("test",),
                callbacks=tuple(makers),
                start=start,
                lr_factors=factors,
                in_place=chosen.optimizer == "sgd" and not chosen.lasso,
            ),
        )


class _KeepFilters(Callback):
    """Keeps the first layer's filter at the top left."""

    def __init__(self, net: nn.Module, marks: Mapping[int, int]) -> None:
        super().__init__()
        self.path, layer = next(iter(embedded_layers(net).items()))
        self.geometry = layer.geometry
        self.marks, self._epochs = frozenset(marks), marks
        self.filters: list[Filter] = []
        self._row: int | None = None

    def at_mark(self, context: Context) -> None:
        """Keep it."""
        weight = context.strategy.state_of(0)[f"{self.path}.weight".lstrip(".")]
        if self._row is None:  # the filter with the largest weights there
            places = weight.shape[0] // self.geometry.out_channels
            self._row = places * int(weight[::places].norm(dim=1).argmax())
        image = weight[self._row].view(self.geometry.padded)
        rms = image.double().square().mean(0).sqrt()
        values = tuple(tuple(float(f"{v:.4g}") for v in row) for row in rms.tolist())
        self.filters.append(Filter(self._epochs[context.step], values))


def run_from(
    protocol: Protocol,
    net: nn.Module,
    relaxed_at: int | None,
    start: Start | None,
    others: Mapping[str, Tensors],
) -> Run:
    """Train one network in the larger space, or read what was measured of it.

    Args:
        protocol: How.
        net: Of the larger space; filled in place.
        relaxed_at: Epoch of the start; None: from scratch.
        start: The convolutional network's weights; None: those of `net`.
        others: "CNN" and "FCN" -> weights at the ends of paths, in the larger space.
    """
    chosen, samples = protocol.options, protocol.samples
    name = "scratch" if relaxed_at is None else f"relaxed-{relaxed_at}"
    path = protocol.folder / f"{name}.json"
    if path.exists():
        return decode(read_record(path)["run"], Run)
    if start is not None:
        lift(net, start.tensors())
    steps = protocol.steps_per_epoch
    keep: list[Callback] = []
    first = next(iter(embedded_layers(net).values()))
    if isinstance(first, DenseConv) and len(first.geometry.padded) == 3:
        epochs = sorted({round(share * chosen.epochs) for share in HEATMAPS})
        keep.append(_KeepFilters(net, {epoch * steps: epoch for epoch in epochs}))
    run = Run(protocol.seed, relaxed_at, before=measure_state(net, samples, chosen.curvature))
    try:
        history = protocol.train(net, start, keep)
        run = replace(
            run, curve=curve_of(history), after=measure_state(net, samples, chosen.curvature),
            paths=_paths(protocol, net, others) if relaxed_at is not None else (),
        )  # fmt: skip
    except NonFiniteLoss as error:
        run = replace(run, failed=str(error))
    run = replace(run, filters=tuple(f for one in keep for f in one.filters))  # type: ignore
    if relaxed_at is None:
        write_tensors(protocol.folder / SCRATCH, net.state_dict())
    write_record(path, {"run": json.loads(json.dumps(encode(run)))})
    return run


def curve_of(history: History) -> tuple[Point, ...]:
    """The rows of a history that was measured on the test set."""
    return tuple(
        Point(row.epoch, row["test_accuracy"], row["test_loss"], row.values.get("train_loss"))
        for row in history.rows
    )


@torch.no_grad()
def _paths(protocol: Protocol, net: nn.Module, others: Mapping[str, Tensors]) -> tuple[Line, ...]:
    """From the convolutional network to this one, and from this one to the one from scratch."""
    own = {name: p.detach().clone() for name, p in net.state_dict().items()}
    found = []
    for name, other in others.items() if protocol.options.points else ():
        first, last = (other, own) if name == "CNN" else (own, other)
        accuracies, deviations = [], []
        for share in torch.linspace(0, 1, protocol.options.points).tolist():
            for key, tensor in net.state_dict().items():
                if tensor.is_floating_point():
                    a, b = first[key].to(tensor.device), last[key].to(tensor.device)
                    tensor.copy_(torch.lerp(a, b, share))
            accuracies.append(accuracy(net, protocol.samples))
            deviations.append(deviation(net, "local"))
        ends = ("CNN", "eFCN") if name == "CNN" else ("eFCN", "FCN")
        found.append(Line(ends, tuple(accuracies), tuple(deviations)))
    net.load_state_dict(own)
    return tuple(found)


def run_seed(
    protocol: Protocol,
    cnn: nn.Module,
    times: tuple[int, ...],
    sources: Mapping[int, Start],
    hear: Callable[[int, str], None],
) -> list[Run]:
    """All runs of a seed in the larger space, one after another.

    Args:
        protocol: How.
        cnn: The convolutional network, trained; left unchanged.
        times: Relax times, rising.
        sources: Relax time -> the weights then.
        hear: Called with the number of runs done, and what is done next.
    """
    chosen, samples = protocol.options, protocol.samples
    with torch.random.fork_rng():
        torch.manual_seed(protocol.seed)
        net = embed(cnn, samples.shape, chosen.space, padding=chosen.padding)
        end = {name: tensor.detach().clone() for name, tensor in net.state_dict().items()}
        for module in net.modules():
            if callable(reset := getattr(module, "reset_parameters", None)):
                reset()
    others: dict[str, Tensors] = {"CNN": end}
    runs = []
    if chosen.scratch:
        hear(0, "from scratch")
        runs.append(run_from(protocol, net, None, None, {}))
        if not runs[-1].failed:
            others["FCN"] = load_file(protocol.folder / SCRATCH)
    shown = {times[0], times[len(times) // 2], times[-1]} if times else set()
    for epoch in times:
        hear(len(runs), f"relaxed at {epoch}")
        ends = others if epoch in shown else {}
        runs.append(run_from(protocol, net, epoch, sources[epoch], ends))
    return runs
