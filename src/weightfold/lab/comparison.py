"""What a comparison found, and how it reads."""

from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table

from weightfold.report.statistics import Paired, Summary
from weightfold.train import History


@dataclass(frozen=True)
class Result:
    """One variant over the seeds; accuracies are shares of the test images.

    Attributes:
        variant: Its spec.
        epochs: It was trained for.
        last: Accuracy after the last epoch.
        best: Accuracy at the best epoch, which is chosen on the same test images.
        difference: Accuracy after the last epoch minus the first variant's, seed by seed; None
            for the first.
        training_parameters: While training.
        deployed_parameters: Of the deployed network.
        step_seconds: Median of a training step, steps of all variants taken in turn.
        step_ratio: The same over the first variant's.
    """

    variant: str
    epochs: int
    last: Summary
    best: Summary
    difference: Paired | None
    training_parameters: int
    deployed_parameters: int
    step_seconds: float
    step_ratio: float


@dataclass(frozen=True)
class Deployed:
    """The network that was exported.

    Attributes:
        variant: Of the highest mean accuracy after the last epoch.
        seed: The first one, whatever its accuracy.
        test_accuracy: Of the deployed network in torch.
        onnx_accuracy: Of its ONNX file in ONNX Runtime.
        onnx_difference: Batch size -> largest |ONNX Runtime - torch| over the largest |torch|.
    """

    variant: str
    seed: int
    test_accuracy: float
    onnx_accuracy: float
    onnx_difference: dict[int, float]


@dataclass(frozen=True)
class Comparison:
    """What `compare` found; prints as a table.

    Attributes:
        configuration: Model, data, variants, seeds, recipe and match, as JSON values.
        session: Versions and machine of the latest call.
        results: One per variant, in their order.
        histories: Variant -> the history of each seed, in their order.
        deployed: The exported network.
    """

    configuration: dict[str, Any]
    session: dict[str, Any]
    results: tuple[Result, ...]
    histories: dict[str, tuple[History, ...]]
    deployed: Deployed

    def __str__(self) -> str:
        variants = readings(self)
        headings = list(variants[0])
        table = Table(headings[0], title=self.title, title_justify="left")
        for variant in variants:
            table.add_column(variant[headings[0]], justify="right", overflow="fold")
        for heading in headings[1:]:
            table.add_row(heading, *(variant[heading] for variant in variants))
        console = Console()
        with console.capture() as capture:
            console.print(table)
            for line in verdicts(self):
                console.print(line, markup=False, highlight=False)
        return capture.get()

    @property
    def title(self) -> str:
        """Network and data."""
        return f"{self.configuration['model']} on {self.configuration['data']}"


def readings(comparison: Comparison) -> list[dict[str, str]]:
    """Heading -> text for each variant: accuracies in percent, differences in points."""
    first = comparison.results[0].variant
    return [
        {
            "variant": result.variant,
            "epochs": str(result.epochs),
            "accuracy, last epoch, %": _percent(result.last),
            "accuracy, best epoch, %": _percent(result.best),
            f"minus {first}, points": _points(result.difference, "mean"),
            "its 95% interval": _points(result.difference, "low", "high"),
            "parameters, training": f"{result.training_parameters:,}",
            "parameters, deployed": f"{result.deployed_parameters:,}",
            "training step, ms": f"{1e3 * result.step_seconds:.2f}",
            f"step / {first}'s": f"{result.step_ratio:.2f}",
        }
        for result in comparison.results
    ]


def verdicts(comparison: Comparison) -> list[str]:
    """A sentence for each variant, whatever it says; and what was deployed."""
    first, *others = comparison.results
    seeds = len(comparison.configuration["seeds"])
    lines = []
    for result in others:
        d = result.difference
        assert d is not None and d.low is not None and d.high is not None
        if d.low > 0:
            said = f"is more accurate than {first.variant}"
        elif d.high < 0:
            said = f"is less accurate than {first.variant}"
        else:
            said = f"and {first.variant} cannot be told apart"
        lines.append(f"{result.variant} {said} by these {seeds} seeds.")
    shipped = comparison.deployed
    worst = max(shipped.onnx_difference.values())
    lines.append(
        f"Deployed: {shipped.variant}, the highest mean, seed {shipped.seed}, the first. Its ONNX "
        f"file has {shipped.onnx_accuracy:.2%} test accuracy in ONNX Runtime, the network "
        f"{shipped.test_accuracy:.2%} in torch; their outputs differ by at most {worst:.1e} of the "
        "largest one."
    )
    return lines


def _percent(summary: Summary) -> str:
    return f"{100 * summary.mean:.2f} ± {100 * (summary.std or 0):.2f}"


def _points(difference: Paired | None, *fields: str) -> str:
    if difference is None:
        return ""
    points = [f"{100 * getattr(difference, field):+.2f}" for field in fields]
    return points[0] if len(points) == 1 else f"[{', '.join(points)}]"
