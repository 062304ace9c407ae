"""Magnitude pruning of one layer at a time: are a network's top layers the more redundant ones?

The sharing paper explains its finding so (section 6) and says that pruning bears it out; it prints
no numbers. Imports no torch until something is measured.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from weightfold.files import locked
from weightfold.lab.domains import DomainsTraining, load_domain, plan_of, shared_net
from weightfold.lab.run import Run
from weightfold.records import read_record, write_record
from weightfold.train.progress import ProgressCallback

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightfold.data import Dataset

RECORD = "pruning.json"
Way = tuple[str, float]
"""What is pruned, "weights" or "filters", and the share of them."""


class Records(TypedDict):
    """What the record of a pruning holds."""

    records: list[dict[str, Any]]


@dataclass(frozen=True)
class Pruning(Run):
    """The networks of a training, each convolution pruned alone and not trained again.

    Attributes:
        net: With plan "independent": a network for each domain.
        ways: How much of what is pruned, by magnitude; filters by their norm.
        images: Of each domain's test images, the first so many.
    """

    net: DomainsTraining
    ways: tuple[Way, ...]
    images: int

    @property
    def title(self) -> str:
        """What is measured, in a few words."""
        return f"{self.net.model} pruned, seed {self.net.seed}"

    @property
    def parts(self) -> tuple[str, ...]:
        """Those of the training."""
        return (*self.net.parts, "pruning")

    @property
    def seed(self) -> int:
        """Of the networks."""
        return self.net.seed

    @property
    def before(self) -> DomainsTraining:
        """The training whose networks are pruned."""
        return self.net

    def over(self, seeds: Sequence[int]) -> "tuple[Pruning, ...]":
        """This of the networks of each of the seeds."""
        return tuple(replace(self, net=net) for net in self.net.over(seeds))

    def finished(self, root: Path) -> Any:
        """Its records, a mapping for each domain, layer and way; None if they are not measured."""
        path = root / self.folder / RECORD
        return read_record(path, Records)["records"] if path.exists() else None

    def train(
        self, root: Path, *, data_root: Path | None = None, progress: bool | ProgressCallback = True
    ) -> Any:
        """Measure, or read what was measured; nothing is trained."""
        from weightfold.train import checkpoint

        done = self.finished(root)
        if done is not None:
            return done
        with locked(root / self.folder):
            net = shared_net(self.net, None)
            checkpoint.load_weights(net, root / self.net.folder / checkpoint.LAST_WEIGHTS)
            records = []
            for domain in self.net.domains:
                dataset = load_domain(domain, self.net, data_root)
                plain = net.deploy(domain=domain.name).eval()
                records += [{"domain": domain.name, **r} for r in self._records(plain, dataset)]
            write_record(root / self.folder / RECORD, {"records": records})
        return records

    def _records(self, plain: "nn.Module", dataset: "Dataset") -> list[dict[str, Any]]:
        from weightfold.methods.mask.verb import mask

        layers = plan_of(self.net.model, self.net.plan, self.net.size, self.net.seed).layers
        accuracy, loss = _measure(plain, dataset, self.images)
        found = []
        for position, layer in enumerate(layers):
            weight = plain.get_parameter(f"{layer.path}.weight")
            for unit, share in self.ways:
                pruned = mask(plain, {f"{layer.path}.weight": mask_largest(weight, unit, share)})
                now, higher = _measure(pruned.eval(), dataset, self.images)
                found.append(
                    {
                        "layer": layer.path,
                        "depth": position / (len(layers) - 1),
                        "filters": layer.filters,
                        "depthwise": layer.groups > 1,
                        "unit": unit,
                        "share": share,
                        "accuracy": accuracy,
                        "drop": 100 * (accuracy - now),
                        "loss_increase": higher - loss,
                    }
                )
        return found


def mask_largest(weight: "Tensor", unit: str, share: float) -> "Tensor":
    """Mask that drops the given share of the smallest weights, or of the filters of least norm."""
    import torch

    size = weight.detach().abs() if unit == "weights" else weight.detach().flatten(1).norm(dim=1)
    keep = torch.ones(size.numel(), dtype=torch.bool)
    keep[size.flatten().argsort()[: int(share * size.numel())]] = False
    keep = keep.view(size.shape)
    return keep if unit == "weights" else keep.view(-1, 1, 1, 1).expand_as(weight)


def _measure(net: "nn.Module", dataset: "Dataset", images: int) -> tuple[float, float]:
    """Accuracy and mean cross-entropy on the first test images."""
    from dataclasses import replace

    import torch
    from torch.nn.functional import cross_entropy

    from weightfold.tasks.registry import as_task

    part = dataset.test.select(torch.arange(min(images, len(dataset.test))))
    right, loss = 0, 0.0
    with torch.inference_mode():
        for x, labels in as_task(replace(dataset, test=part)).batches("test").epoch(0):
            logits = net(x)
            right += int((logits.argmax(1) == labels).sum())
            loss += float(cross_entropy(logits, labels, reduction="sum"))
    return right / len(part), loss / len(part)
