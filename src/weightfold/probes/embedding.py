"""wf's probe "embed": what a network takes in its larger spaces, and how fast it moves there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, ClassVar, Literal, TypedDict, Unpack

import torch
from torch import Tensor

from weightfold.core.arguments import check_choices, gathered
from weightfold.data.pairs import Data
from weightfold.methods.embed.chart import ConvolutionMatrix
from weightfold.methods.embed.size import amount, memory
from weightfold.methods.embed.verb import embed, embedding_size
from weightfold.probes.finding import Finding
from weightfold.probes.layers.units import check_plain
from weightfold.probes.models import Model, net_of
from weightfold.probes.registry import register_probe
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.page import Table
from weightfold.tasks.registry import as_task
from weightfold.tasks.task import Task, evaluating
from weightfold.train.progress import ProgressCallback
from weightfold.train.record import session
from weightfold.train.together import device_of

EXAMPLES = 16
"""Images that the functions are compared on."""


@dataclass(frozen=True)
class SpaceSize:
    """A network in one of its spaces.

    Attributes:
        space: "dense", "local", "lowrank" or "shared".
        weights: Of the whole network.
        bytes: Of the whole network.
        training: Bytes while training with plain SGD and 64 images.
        difference: Largest difference of outputs from the network's, over their largest value;
            None: it was not built.
        seconds: To write its weights, once.
    """

    space: str
    weights: int
    bytes: int
    training: int
    difference: float | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Repeats:
    """How often a layer's weights are repeated: its factors of the metric.

    Attributes:
        layer: Path.
        least: Over the entries of a kernel; fewer at the border, where padding is folded away.
        mean: The factor of the fair rate.
        most: Of entries, with padding kept of all.
    """

    layer: str
    least: float
    mean: float
    most: float


@dataclass(frozen=True, kw_only=True)
class Embedding(Finding):
    """A convolutional network in its larger spaces.

    Attributes:
        network: Class and size.
        data: Name of the data.
        spaces: Its sizes there.
        layers: Of the dense space, with padding folded away.
    """

    probe: ClassVar[str] = "embed"
    network: str
    data: str
    spaces: tuple[SpaceSize, ...]
    layers: tuple[Repeats, ...]

    @property
    def headline(self) -> str:
        """The answer in words."""
        by_space = {one.space: one for one in self.spaces}
        dense, local = by_space["dense"], by_space["local"]
        built = [one for one in self.spaces if one.difference is not None]
        worst = max((one.difference or 0.0 for one in built), default=0.0)
        same = f" The same function to {worst:.1g} in {len(built)} spaces." if built else ""
        return (
            f"{self.network}: {dense.weights:,} weights fully connected, {amount(dense.bytes)}; "
            f"{local.weights:,} locally connected, {amount(local.bytes)}.{same}"
        )

    @property
    def meaning(self) -> str:
        """What it means, in words."""
        return (
            "A convolution is a large matrix whose entries are mostly zero and otherwise repeated. "
            "How often each is repeated is also how much faster the convolutional network moves "
            "in the space of such matrices than plain SGD there, at the same rate."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A row for each space."""
        return [dict(vars(one)) for one in self.spaces]

    def table(self) -> Table:
        """A row for each space."""
        columns = ["space", "weights", "size", "training", "difference", "seconds to write"]
        return Table(
            columns,
            [
                [
                    one.space, f"{one.weights:,}", amount(one.bytes), amount(one.training),
                    "" if one.difference is None else f"{one.difference:.1g}",
                    "" if one.seconds is None else f"{one.seconds:.2g}",
                ]
                for one in self.spaces
            ],
        )  # fmt: skip

    def draw(self, path: Path) -> None:
        """Weights by space, and repeats by layer."""
        with drawing(path, figsize=(10, 3.6), ncols=2) as (figure, axes):
            names = [one.space for one in self.spaces]
            axes[0].barh(names, [one.weights for one in self.spaces], color=COLOURS[0])
            axes[0].set(xscale="log", xlabel="weights")
            layers = [one.layer for one in self.layers]
            means = [one.mean for one in self.layers]
            ends = [
                [one.mean - one.least for one in self.layers],
                [one.most - one.mean for one in self.layers],
            ]
            axes[1].errorbar(layers, means, yerr=ends, fmt="o", color=COLOURS[1], capsize=3)
            axes[1].set(ylabel="times a weight is repeated", xlabel="layer", ylim=(0, None))
            axes[1].tick_params(axis="x", labelrotation=60)
            figure.suptitle(f"{self.network}, {self.data}")


@dataclass(frozen=True, kw_only=True)
class EmbeddingOptions:
    """How a network is embedded.

    Attributes:
        rank: Of the low-rank space.
        padding: As for `wf.embed`.

    Raises:
        ValueError: One is out of range.
    """

    rank: int = 16
    padding: Literal["fold", "keep"] = "fold"

    def __post_init__(self) -> None:
        check_choices({"padding": self.padding}, {"padding": ("fold", "keep")})
        if self.rank < 1:
            raise ValueError(f"rank={self.rank}: give at least 1")


class EmbeddingKeywords(TypedDict, total=False):
    """`EmbeddingOptions` as keyword arguments."""

    options: EmbeddingOptions
    rank: int
    padding: Literal["fold", "keep"]


@register_probe(
    "embed",
    "what a network takes in its fully-connected space",
    finds=Embedding,
    options=EmbeddingOptions,
)
def embedding(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    folder: Path | str | None = None,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    **options: Unpack[EmbeddingKeywords],
) -> Embedding:
    """Sizes of a network in its larger spaces, whether it is the same there, and its metric.

    Args:
        net: A module, or a function that makes the network of a seed; left unchanged.
        data: A task, or data, of which inputs alone are used.
        seeds: The first is the network's.
        folder: Not used: it takes seconds.
        device: Where to compute; "auto": an accelerator if there is one.
        progress: Not used.
        **options: Fields of `EmbeddingOptions`, or one as `options`.

    Raises:
        TypeError: `net` or `data` is of no such kind.
        ValueError: A layer cannot be embedded.
    """
    chosen = gathered(EmbeddingOptions, options)
    seed, device = (0 if isinstance(seeds, int) else seeds[0]), device_of(device)
    samples, model = as_task(data).dataset, net_of(net, seed)
    check_plain(model, "net")
    x = samples.normalize(samples.test.inputs[:EXAMPLES]).to(device)
    model.to(device)
    sizes = embedding_size(model, samples.shape, rank=chosen.rank, padding=chosen.padding)
    spaces = []
    for space, size in sizes.items():
        there = memory(device)
        fits = there is not None and 3 * size.bytes < there and size.space != "shared"
        found = _compared(model, space, samples.shape, x, chosen) if fits else (None, None)
        spaces.append(
            SpaceSize(space, size.weights + size.others, size.bytes, size.training(64), *found)
        )
    with torch.device("meta"):
        shell = embed(model.to("meta"), samples.shape, padding=chosen.padding)
    factors = ConvolutionMatrix.over(shell).factors()
    layers = tuple(
        Repeats(n.removesuffix(".weight"), t.min().item(), t.mean().item(), t.max().item())
        for n, t in factors.items()
        if n.endswith("weight")
    )
    return Embedding(
        network=f"{type(model).__name__} ({sum(p.numel() for p in model.parameters()):,} weights)",
        data=samples.name,
        spaces=tuple(spaces),
        layers=layers,
        notes=(f"Padding: {chosen.padding}; low rank is rank {chosen.rank} for every layer.",),
        sessions=(session(device),),
    )


@torch.no_grad()
def _compared(
    model: Any, space: str, shape: tuple[int, ...], x: Tensor, chosen: EmbeddingOptions
) -> tuple[float, float]:
    begin = perf_counter()
    net = embed(
        model, shape, space, rank=chosen.rank if space == "lowrank" else None,  # type: ignore
        padding=chosen.padding,
    )  # fmt: skip
    seconds = perf_counter() - begin
    with evaluating(model), evaluating(net):
        expected, found = model(x), net(x)
    scale = expected.abs().max().clamp_min(1e-30)
    return ((found - expected).abs().max() / scale).item(), seconds
