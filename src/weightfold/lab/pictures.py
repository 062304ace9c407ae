"""Pictures of what networks say of test images, beside what is true."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from weightfold.lab.results import Results
from weightfold.lab.saved import deployed
from weightfold.lab.training import Training, net_of
from weightfold.report.figures import drawing
from weightfold.report.page import Section
from weightfold.tasks.measure import Measure
from weightfold.tasks.task import Task, evaluating
from weightfold.train import Start
from weightfold.train.evaluation import Evaluation
from weightfold.train.starts import begin

_SHOWN = 2
"""Worst images, and best ones."""


def trained(run: Training, task: Task, folder: Path) -> nn.Module:
    """The deployed network of a finished run in `folder`/runs."""
    return deployed(begin(net_of(run, task), Start(folder / "runs" / run.folder)))


def pictures(results: Results, folder: Path, task: Task) -> list[Section]:
    """The test images on which the first line's network is worst and best, as all lines see them.

    Networks are those of the first seed. Images are ranked by the first of the task's measures that
    is one of single examples.

    Args:
        results: Of a comparison.
        folder: Of the comparison; holds the runs, and gets pictures.png.
        task: What was learnt.

    Returns:
        One section; none if the task draws nothing.
    """
    shape, examples = task.dataset.shape, task.dataset.test
    if examples.dtype != torch.uint8 or len(shape) != 3 or shape[0] not in (1, 3):
        return []
    first = examples.select(torch.zeros(1, dtype=torch.int64))
    if task.drawn(_rgb(first.inputs[0]), first.targets[0]) is None:
        return []
    runs = {label: results.run_of(label) for label in results.outcomes}
    nets = {x: trained(run, task, folder) for x, run in runs.items() if isinstance(run, Training)}
    measure = next(m for m in task.measures if not m.of_part)
    chosen = _ranked(next(iter(nets.values())), task, measure)
    path = folder / "pictures.png"
    _draw(nets, task, measure, chosen, path)
    text = (
        f"Test images with the lowest and the highest {measure.title} of {next(iter(nets))}, as it "
        f"sees them after the last epoch of the first seed. Above each: its {measure.name}."
    )
    return [Section("Worst and best test images", text, None, path)]


def _ranked(net: nn.Module, task: Task, measure: Measure) -> Tensor:
    """Places of the worst and then the best test images, int64."""
    scores = [
        task.scores(outputs, targets)[measure.name]
        for outputs, targets in Evaluation(task, "test", torch.device("cpu")).outputs(net)
    ]
    order = torch.cat(scores).argsort(descending=not measure.higher_is_better, stable=True)
    few = min(_SHOWN, len(order) // 2)
    return torch.cat([order[:few], order[len(order) - few :].flip(0)])


@torch.no_grad()
def _draw(
    nets: dict[str, nn.Module], task: Task, measure: Measure, chosen: Tensor, path: Path
) -> None:
    """A row an image: what is true, and what each network says."""
    few = task.dataset.test.select(chosen)
    said: dict[str, Any] = {}
    for label, net in nets.items():
        with evaluating(net):
            said[label] = task.read(net(task.dataset.normalize(few.inputs)))
    scores = {x: task.scores(out, few.targets)[measure.name].tolist() for x, out in said.items()}
    rows, columns = len(chosen), 1 + len(nets)
    high = task.dataset.shape[1] / task.dataset.shape[2]
    options = {"nrows": rows, "ncols": columns, "squeeze": False}
    with drawing(path, figsize=(3.2 * columns, rows * (3.2 * high + 0.4)), **options) as (_, axes):
        for row, place in enumerate(chosen.tolist()):
            image = _rgb(few.inputs[row])
            shown = {f"true, image {place}": task.drawn(image, few.targets[row])}
            for label, outputs in said.items():
                drawn = task.drawn(image, few.targets[row], outputs[row : row + 1])
                shown[f"{label}\n{measure.text(scores[label][row])}"] = drawn
            for axis, (title, drawn) in zip(axes[row], shown.items(), strict=True):
                assert drawn is not None
                axis.imshow(drawn.movedim(0, -1).numpy())
                axis.set_title(title, fontsize="small")
                axis.set_axis_off()


def _rgb(image: Tensor) -> Tensor:
    return image.expand(3, -1, -1)
