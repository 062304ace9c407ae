"""`weightfold domains eval`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


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

    model: str | None = None
    """Network, for a bundle that does not tell its own, or names code of yours (module:function),
    which no file may run by itself."""

    out: Path | None = None
    """Write the accuracies there, as JSON."""

    data_root: Path | None = None
    """Data folder; none: the environment variable WEIGHTFOLD_DATA."""

    def run(self) -> None:
        """Measure, and print a table."""
        from rich.console import Console
        from rich.table import Table

        from weightfold.cli.domains.inputs import as_trained, open_bundle, read_domains
        from weightfold.files import write_json
        from weightfold.train import session
        from weightfold.train.domains import evaluate_domains

        bundle, model, spec = open_bundle(self.source, self.model)
        datasets = as_trained(bundle, read_domains(self.domains, self.data_root))
        accuracies = evaluate_domains(bundle.load(model, list(datasets)), datasets)
        mean = sum(accuracies.values()) / len(accuracies)
        table = Table("domain", "classes", "test images", "accuracy")
        for name, accuracy in accuracies.items():
            images = len(datasets[name].test)
            table.add_row(name, str(bundle.classes[name]), f"{images:,}", f"{accuracy:.2%}")
        table.add_row("mean", "", "", f"{mean:.2%}")
        Console().print(table)
        if self.out is not None:
            result = {"bundle": str(bundle.folder), "model": spec, "domains": list(self.domains)}
            measured = {"accuracy": accuracies, "mean": mean, "session": session()}
            write_json(self.out, result | measured)
