"""`wf.critical_sample_ratio`: how many examples have another prediction close by."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar, Unpack

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from weightfold.core.arguments import device_of, gathered
from weightfold.data import Dataset
from weightfold.data.pairs import Data
from weightfold.hints import check_arguments
from weightfold.probes.finding import Finding
from weightfold.probes.memory.options import CriticalKeywords, CriticalOptions
from weightfold.probes.models import Model, labelled, net_of
from weightfold.probes.registry import register_probe
from weightfold.report.figures import COLOURS, drawing
from weightfold.report.numbers import interval
from weightfold.report.statistics import paired
from weightfold.tasks.outputs import tensor_of
from weightfold.tasks.task import Task
from weightfold.train.progress import Progress, ProgressCallback, progress_bar
from weightfold.train.record import session
from weightfold.train.seeding import as_seeds

RADIUS = 0.3
"""Of the box, in Arpit et al. 2017, section 4.2, for pixels from 0 to 255."""

SIGN, NOISE = 0.25 / RADIUS, 0.2 / RADIUS
"""Lengths of the gradient's sign and of the noise in a step, over the radius: theirs are 0.25 and
0.2 with a radius of 0.3. That they grow with it is ours."""

_BATCH = 500


@dataclass(frozen=True)
class Search:
    """What was found around the examples of one network.

    Attributes:
        seed: Of the network and the search.
        examples: How many were searched around.
        found: How many were critical, after each step of the search.
    """

    seed: int
    examples: int
    found: tuple[int, ...]

    @property
    def ratio(self) -> float:
        """Share of critical examples."""
        return self.found[-1] / self.examples

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Exact binomial (Clopper-Pearson) interval of the ratio, over draws of the examples.

        Raises:
            ImportError: scipy is not installed.
        """
        try:
            from scipy.stats import binomtest
        except ImportError as error:
            raise ImportError("intervals need scipy: pip install 'weightfold[train]'") from error
        found = binomtest(self.found[-1], self.examples).proportion_ci(level)
        return float(found.low), float(found.high)


@dataclass(frozen=True, kw_only=True)
class CriticalSamples(Finding):
    """Critical sample ratios of trained networks (Arpit et al. 2017, section 4.1).

    Attributes:
        searches: One for each seed.
        radius: Of the box, in the unit of the data's values.
        part: Part of the data that was searched around.
    """

    probe: ClassVar[str] = "critical-samples"
    per_seed: ClassVar[tuple[str, ...]] = ("searches",)
    searches: tuple[Search, ...]
    radius: float
    part: str

    @property
    def ratio(self) -> float:
        """Mean over the searches of the share of critical examples, a lower bound."""
        return fmean(search.ratio for search in self.searches)

    @property
    def headline(self) -> str:
        """The ratio with its interval."""
        examples = self.searches[0].examples
        text = (
            f"At least {self.ratio:.1%} of {examples:,} {self.part} examples are critical: within "
            f"{self.radius:g} of every value of the input lies a point that is classified otherwise"
        )
        if len(self.searches) > 1:
            ratios = [search.ratio for search in self.searches]
            over = paired(ratios, [0.0] * len(ratios))
            return f"{text} ({_within(over.low, over.high)}, {over.n} seeds)."
        low, high = self.searches[0].interval()
        return f"{text} ({_within(low, high)} over draws of the examples)."

    @property
    def meaning(self) -> str:
        """What critical examples tell."""
        return (
            "The share of examples close to a decision boundary measures how finely the network "
            "divides the inputs. Networks that fit noise, which can only be learnt by heart, have "
            "more critical examples than networks that learn what the classes have in common. "
            "The search may miss a point, so the share is a lower bound."
        )

    def rows(self) -> list[dict[str, Any]]:
        """A line for each seed and step of the search."""
        return [
            {"seed": s.seed, "step": step, "examples": s.examples, "critical": found}
            for s in self.searches
            for step, found in enumerate(s.found, 1)
        ]

    def draw(self, path: Path) -> None:
        """The share found after each step: where it still rises, more steps would find more."""
        with drawing(path, figsize=(6, 4)) as (figure, axis):
            for index, search in enumerate(self.searches):
                shares = [100 * found / search.examples for found in search.found]
                colour = COLOURS[index % len(COLOURS)]
                axis.plot(range(1, len(shares) + 1), shares, color=colour, marker="o", markersize=3)
            axis.set(xlabel="step of the search", ylabel=f"critical {self.part} examples (%)")
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            seeds = len(self.searches)
            figure.suptitle(f"box of radius {self.radius:g}, {seeds} seed{'s' * (seeds > 1)}")


def _within(low: float | None, high: float | None) -> str:
    """The 95% interval of a share."""
    low, high = (None if end is None else 100 * end for end in (low, high))
    return f"95% {interval(low, high, 1, within=(0, 100))}%"


@register_probe(
    "critical-samples",
    "the share of examples with another prediction close by, for a trained network",
    finds=CriticalSamples,
    options=CriticalOptions,
    trained=True,
)
def critical_sample_ratio(
    net: Model,
    data: Task | Data,
    *,
    seeds: int | Sequence[int] = 1,
    device: torch.device | str = "auto",
    progress: bool | ProgressCallback = True,
    **options: Unpack[CriticalKeywords],
) -> CriticalSamples:
    """The share of examples with a point of another predicted class in a small box around them.

    Arpit et al., "A closer look at memorization in deep networks" (2017), section 4.1, with their
    Langevin adversarial sample search (Algorithm 1), see `search`. Labels are not used.

    >>> import torch, weightfold as wf
    >>> x = torch.randn(80, 6, generator=torch.Generator().manual_seed(0))
    >>> y = (x[:, 0] > 0).long()
    >>> net, data = torch.nn.Linear(6, 2), ((x[:60], y[:60]), (x[60:], y[60:]))
    >>> wf.critical_sample_ratio(net, data, radius=100.0, progress=False).ratio
    1.0

    Args:
        net: A trained network, measured as it is; or a function that gives the trained network
            of a seed.
        data: A classification task, or what `weightfold.data.as_dataset` takes.
        seeds: Of the networks that a function gives, and of the search; a count n: 0 to n - 1.
        device: To compute on; "auto": an accelerator if there is one.
        progress: Show a bar; or a function that is told how far the probe is.
        **options: Fields of `CriticalOptions`, or one as `options`.

    Returns:
        The ratios. They are lower bounds: a search may miss the point.

    Raises:
        TypeError: `net` is no model, `data` another task, or `options` has no such field.
        ValueError: An argument is out of range, or no radius is given for floating point inputs.
    """
    check_arguments(critical_sample_ratio, progress=progress)
    chosen, seeds, device = gathered(CriticalOptions, options), as_seeds(seeds), device_of(device)
    samples = labelled(data, "it looks for points of another predicted class").to(device)
    part, radius = chosen.part, chosen.radius
    if part not in samples.parts:
        raise ValueError(f"part={part!r}; the data has {', '.join(samples.parts)}")
    x = samples.parts[part].inputs
    if radius is None:
        if x.dtype != torch.uint8:
            raise ValueError(
                f"radius=None with {x.dtype} inputs; give the box's radius in their unit ({RADIUS} "
                "of 255 in the paper)"
            )
        radius = RADIUS
    searches = []
    with progress_bar(progress, "critical samples") as show:
        for index, seed in enumerate(seeds):

            def listen(done: int, index: int = index) -> None:
                total = len(seeds) * len(x)
                show(Progress(index * len(x) + done, total, f"network {index + 1}/{len(seeds)}"))

            searched = net_of(net, seed).to(device)
            steps_found = search(
                searched, samples, x, radius=radius, steps=chosen.steps, seed=seed, told=listen
            )
            searches.append(Search(seed, len(x), counted(steps_found, chosen.steps)))
    notes = (
        f"Searched in {chosen.steps} steps in a box of radius {radius:g} around each {part} input, "
        "not clipped to the range of the inputs; networks in eval mode.",
    )
    return CriticalSamples(
        searches=tuple(searches),
        radius=radius,
        part=part,
        notes=notes,
        sessions=(session(device),),
    )


def counted(first: Tensor, steps: int) -> tuple[int, ...]:
    """How many were found after each of `steps`, of what `search` returns."""
    return tuple(first[first > 0].bincount(minlength=steps + 1)[1:].cumsum(0).tolist())


def search(
    net: nn.Module,
    samples: Dataset,
    x: Tensor,
    *,
    radius: float,
    steps: int = 10,
    seed: int = 0,
    told: Callable[[int], None] = lambda done: None,
) -> Tensor:
    """Langevin adversarial sample search (Arpit et al. 2017, Algorithm 1) around each input.

    From the input on, each step adds the sign of the gradient and Gaussian noise, see `SIGN` and
    `NOISE`, and goes back into the box. The paper leaves open of which output the gradient is;
    here it is that of the cross-entropy of the class predicted at the input, taken where the search
    is.

    Args:
        net: In eval mode while it is searched; left unchanged.
        samples: Whose `inputs` normalise `x`.
        x: Inputs as stored, (N, ...).
        radius: Of the box, in the unit of `x`.
        steps: At least 1.
        seed: Of the noise.
        told: Called with how many inputs are done.

    Returns:
        The step, from 1, in which the prediction was first another one; 0 if in none. int64 (N,).

    Raises:
        ValueError: `radius` is not above 0, or `steps` below 1.
    """
    if not radius > 0:
        raise ValueError(f"radius={radius}: give a number above 0, in the unit of the inputs")
    if steps < 1:
        raise ValueError(f"steps={steps}: give at least 1 step of the search")
    training = {module: module.training for module in net.modules()}
    net.eval()
    generator = torch.Generator().manual_seed(seed)
    first = torch.zeros(len(x), dtype=torch.int64)
    try:
        for begin in range(0, len(x), _BATCH):
            part = x[begin : begin + _BATCH].float()
            first[begin : begin + _BATCH] = _around(net, samples, part, radius, steps, generator)
            told(min(begin + _BATCH, len(x)))
    finally:
        for module, mode in training.items():
            module.training = mode
    return first


def _around(
    net: nn.Module,
    samples: Dataset,
    x: Tensor,
    radius: float,
    steps: int,
    generator: torch.Generator,
) -> Tensor:
    def logits(inputs: Tensor) -> Tensor:
        return tensor_of(net(samples.normalize(inputs)))

    with torch.no_grad():
        predicted = logits(x).argmax(dim=1)
    left, at = torch.arange(len(x), device=x.device), x
    first = torch.zeros_like(left)
    for step in range(1, steps + 1):
        at = at.detach().requires_grad_()
        loss = F.cross_entropy(logits(at), predicted[left], reduction="sum")
        (gradient,) = torch.autograd.grad(loss, at)
        noise = torch.randn(at.shape, generator=generator).to(at.device)
        with torch.no_grad():
            moved = at + radius * (SIGN * gradient.sign() + NOISE * noise)
            at = torch.minimum(torch.maximum(moved, x[left] - radius), x[left] + radius)
            other = logits(at).argmax(dim=1) != predicted[left]
        first[left[other]] = step
        left, at = left[~other], at[~other]
        if not len(left):
            break
    return first
