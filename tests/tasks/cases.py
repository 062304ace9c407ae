"""One small problem a task, with a network that fits it: what every task's contract is tried on."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from weightfold.data import Dataset, Examples
from weightfold.tasks import Measure, Task, Terms, build


@dataclass(frozen=True)
class Case:
    """A task, and its network of a seed."""

    task: Task
    net: Callable[[int], nn.Module]


def inputs(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


def dataset(target: Callable[[torch.Tensor], torch.Tensor], classes: int = 0) -> Dataset:
    parts = [Examples(x, target(x)) for x in (inputs(48, 0), inputs(20, 1), inputs(12, 2))]
    return Dataset("made", parts[0], parts[1], classes, validation=parts[2])


def net(outputs: int) -> Callable[[int], nn.Module]:
    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, outputs))

    return make


@dataclass(frozen=True, eq=False)
class Counting(Task):
    """As torchvision's detectors: ragged targets, and in train mode the model gives its losses."""

    measures = (Measure("count_error", "absolute error of the count", higher_is_better=False),)
    model_computes_loss = True

    @property
    def outputs(self):
        return 1

    def read(self, outputs):
        return outputs

    def losses(self, outputs, targets):
        raise NotImplementedError

    def scores(self, outputs, targets):
        counts = torch.tensor([float(len(one["points"])) for one in targets])
        found = torch.stack([one["count"] for one in outputs])
        return {"count_error": (found - counts).abs()}

    def wanted(self, targets):
        return (len(targets),)

    def check_outputs(self, net, outputs, targets):
        if not isinstance(outputs, list) or not all("count" in one for one in outputs):
            raise ValueError(
                f"net={type(net).__name__} gives no counts; task {self.name!r} on "
                f"{self.dataset.name!r} takes a list of dicts with 'count'"
            )

    def baseline(self):
        counts = [float(len(one["points"])) for one in self.dataset.test.targets]
        return sum(abs(count - 2) for count in counts) / len(counts)

    def objective(self, net, inputs, targets):
        return Terms(torch.stack(list(net(inputs, targets).values())).sum(), {})


Counting.name = "toy-counting"


class Counter(nn.Module):
    """Gives a dict of losses in train mode, and a list of dicts in eval mode."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = nn.Linear(5, 1)

    def forward(self, x, targets=None):
        counts = self.layer(x)[:, 0]
        if targets is None:
            return [{"count": count} for count in counts]
        wanted = torch.tensor([float(len(one["points"])) for one in targets])
        return {"near": (counts - wanted).square().mean(), "small": 1e-4 * counts.abs().mean()}


def counting():
    def part(count, seed):
        x = inputs(count, seed)
        many = (2 + x[:, 0].round()).clamp(min=0).int().tolist()
        return Examples(x, [{"points": torch.zeros(m, 2)} for m in many])

    return Counting(Dataset("made", part(48, 0), part(20, 1), validation=part(12, 2)))


def maps(outputs: int) -> Callable[[int], nn.Module]:
    """A network that maps each pixel by itself."""

    def make(seed: int) -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            return nn.Sequential(nn.Conv2d(3, 12, 1), nn.Tanh(), nn.Conv2d(12, outputs, 1))

    return make


def pictures(target: Callable[[torch.Tensor], object], classes: int) -> Dataset:
    """Images (3, 4, 5) of noise with one bright pixel each, in channel 0 or 1."""

    def part(count: int, seed: int) -> Examples:
        generator = torch.Generator().manual_seed(seed)
        x = 0.1 * torch.randn(count, 3, 20, generator=generator)
        place = torch.randint(0, 20, (count,), generator=generator)
        x[torch.arange(count), torch.arange(count) % 2, place] = 3.0
        x = x.view(count, 3, 4, 5)
        return Examples(x, target(x))

    parts = [part(48, 0), part(20, 1), part(12, 2)]
    return Dataset("made", parts[0], parts[1], classes, validation=parts[2])


def boxes(x: torch.Tensor) -> list[dict[str, torch.Tensor]]:
    found = []
    for image in x:
        label, row, column = (image > 2).nonzero()[0].tolist()
        box = torch.tensor([[column, row, column + 1, row + 1]], dtype=torch.float32)
        found.append({"boxes": box, "labels": torch.tensor([label])})
    return found


class OneBox(nn.Module):
    """As torchvision's detectors: finds one box an image."""

    def __init__(self, seed):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            self.layer = nn.Linear(60, 6)

    def forward(self, x, targets=None):
        found = self.layer(x.flatten(1))
        corner, logits = 5 * found[:, :2].sigmoid(), found[:, 3:]
        boxes = torch.cat([corner, corner + 1], dim=1)
        if targets is None:
            best = logits.softmax(dim=1)[:, 1:].max(dim=1)
            return [
                {"boxes": box[None], "scores": score[None], "labels": label[None] + 1}
                for box, score, label in zip(boxes, *best, strict=True)
            ]
        true = torch.cat([target["boxes"] for target in targets])
        labels = torch.cat([target["labels"] for target in targets])
        assert labels.min() >= 1
        return {
            "boxes": (boxes - true).square().mean(),
            "classes": nn.functional.cross_entropy(logits, labels),
        }


CASES = {
    "classify": lambda: Case(
        build("classify", dataset(lambda x: (x[:, 0] > 0).long() + (x[:, 1] > 0), 3)), net(3)
    ),
    "regress": lambda: Case(build("regress", dataset(lambda x: x[:, :2] * 2 + 1)), net(2)),
    "multilabel": lambda: Case(
        build("multilabel", dataset(lambda x: (x[:, :3] > 0).long())), net(3)
    ),
    "segment": lambda: Case(
        build(
            "segment",
            pictures(
                lambda x: (
                    (x[:, :2] > 2).byte().mul(torch.tensor([[[1]], [[2]]]).byte()).sum(1).byte()
                ),
                3,
            ),
        ),
        maps(3),
    ),
    "detect": lambda: Case(build("detect", pictures(boxes, 2), anchors=((0.2, 0.25),)), maps(7)),
    "detector": lambda: Case(build("detector", pictures(boxes, 2)), OneBox),
    "toy-counting": lambda: Case(counting(), Counter),
}
