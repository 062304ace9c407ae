"""Magnitude pruning of one layer at a time: are a network's top layers the more redundant ones?

The sharing paper explains its finding so (section 6) and says that pruning bears it out; it prints
no numbers. Imports no torch until something is measured.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from weightfold.files import locked
from weightfold.lab.declare import PRESETS
from weightfold.lab.domains_cell import DomainCell, load_domain, plan_of, shared_net
from weightfold.records import read_record, write_record
from weightfold.train.progress import Tell

if TYPE_CHECKING:
    from torch import Tensor, nn

    from weightfold.data import Dataset

RECORD = "pruning.json"
Way = tuple[str, float]
"""What is pruned, "weights" or "filters", and the share of them."""


class Records(TypedDict):
    """What the record of a cell holds."""

    records: list[dict[str, Any]]


@dataclass(frozen=True)
class PruningCell:
    """The networks of a cell, each convolution pruned alone and not trained again.

    Attributes:
        net: With plan "independent": a network for each domain.
        ways: How much of what is pruned, by magnitude; filters by their norm.
        images: Of each domain's test images, the first so many.
    """

    net: DomainCell
    ways: tuple[Way, ...]
    images: int

    @property
    def folder(self) -> str:
        """Name of the folder of its record."""
        key = hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:10]
        return f"{self.net.folder.rpartition('_')[0]}_pruning_{key}"

    @property
    def title(self) -> str:
        """What is measured, in a few words."""
        return f"{self.net.model} pruned, seed {self.net.seed}"

    @property
    def before(self) -> DomainCell:
        """The cell whose networks are pruned."""
        return self.net

    def finished(self, root: Path) -> Any:
        """Its records, a mapping for each domain, layer and way; None if they are not measured."""
        path = root / self.folder / RECORD
        return read_record(path, Records)["records"] if path.exists() else None

    def train(
        self,
        root: Path,
        *,
        data_root: Path | None = None,
        progress: bool | Tell = True,
    ) -> Any:
        """Measure, or read what was measured.

        Args:
            root: Folder of the runs; holds that of `net`, finished.
            data_root: Data folder; None: $WEIGHTFOLD_DATA.
            progress: Not used: nothing is trained.
        """
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
                pruned = mask(plain, {f"{layer.path}.weight": _largest(weight, unit, share)})
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


def _largest(weight: "Tensor", unit: str, share: float) -> "Tensor":
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


@dataclass(frozen=True)
class PruningExperiment:
    """The paper's argument from pruning.

    Attributes:
        name: "zhang2021-pruning".
        paper: Authors, title, place in the paper.
        title: What it shows.
        nets: Preset -> label of a backbone -> its independent networks, a cell for each seed.
        ways: How much of what is pruned.
        images: Preset -> test images of each domain.
        differs: Preset -> how it differs from the paper.
    """

    name: str
    paper: str
    title: str
    nets: Mapping[str, Mapping[str, tuple[DomainCell, ...]]]
    ways: tuple[Way, ...]
    images: Mapping[str, int]
    differs: Mapping[str, str]

    @property
    def remarks(self) -> list[str]:
        """What cannot be run without data of the user's."""
        return ["paper: needs what Table 1 needs"]

    def cells(
        self, preset: str, *, data: str | None = None, seeds: int | None = None
    ) -> dict[str, tuple[PruningCell, ...]]:
        """What a preset measures.

        Args:
            preset: One of `PRESETS`.
            data: None; the domains are the networks'.
            seeds: The first so many; None: all of the preset.

        Returns:
            Backbone -> one cell per seed.

        Raises:
            ValueError: There is no such preset, `data` is given, or `seeds` is out of range.
        """
        if preset not in self.nets:
            raise ValueError(f"preset={preset!r}; choose {', '.join(PRESETS)}")
        if data is not None:
            raise ValueError(f"data={data!r}: {self.name} has its own domains; leave data out")
        most = min(map(len, self.nets[preset].values()))
        if seeds is not None and not 1 <= seeds <= most:
            raise ValueError(f"seeds={seeds}: {self.name} has 1 to {most} in preset {preset}")
        return {
            label: tuple(
                PruningCell(cell, self.ways, self.images[preset]) for cell in cells[:seeds]
            )
            for label, cells in self.nets[preset].items()
        }

    def write(self, preset: str, runs: Path, folder: Path, *, asked: Mapping[str, Any]) -> Path:
        """Write results.csv, results.json, figures and the page from what is finished."""
        from weightfold.lab.domains_pruning_page import write_results

        cells = self.cells(preset, data=asked["data"], seeds=asked["seeds"])
        return write_results(self, preset, cells, runs, folder, asked=asked)
