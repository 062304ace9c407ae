"""`weightfold domains eval`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from weightfold.cli.options import BundleModel, DataRoot


@dataclass(frozen=True)
class Eval:
    """Measure the test accuracy of a bundle's domains.

    Images are normalised as they were in training. Only the files of the domains that are named
    are read.
    """

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    domains: tuple[str, ...]
    """NAME=DATASET each, of some or all of the bundle's domains."""

    model: BundleModel = None

    out: Path | None = None
    """Write the accuracies there, as JSON."""

    data_root: DataRoot = None

    def run(self) -> None:
        """Measure, and print a table."""
        from rich.console import Console
        from rich.table import Table

        from weightfold.files import write_json
        from weightfold.train import session
        from weightfold.train.domains.bundles import evaluate_bundle, find_bundle
        from weightfold.train.domains.inputs import read_domains

        bundle = find_bundle(self.source)
        datasets = read_domains(self.domains, self.data_root)
        accuracies = evaluate_bundle(self.source, datasets, model=self.model)
        mean = sum(accuracies.values()) / len(accuracies)
        table = Table("domain", "classes", "test images", "accuracy")
        for name, accuracy in accuracies.items():
            images = len(datasets[name].test)
            table.add_row(name, str(datasets[name].num_classes), f"{images:,}", f"{accuracy:.2%}")
        table.add_row("mean", "", "", f"{mean:.2%}")
        Console().print(table)
        if self.out is not None:
            result = {"bundle": str(bundle.folder), "domains": list(self.domains)}
            measured = {"accuracy": accuracies, "mean": mean, "session": session()}
            write_json(self.out, result | measured)
