"""`weightfold domains predict`."""

from dataclasses import dataclass
from pathlib import Path

import tyro

from weightfold.cli.options import BundleModel


@dataclass(frozen=True)
class Predict:
    """Classify image files with one domain of a bundle.

    Prints the likeliest classes of each file with their probabilities.
    """

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    images: tyro.conf.Positional[tuple[Path, ...]]
    """Image files; they are scaled and normalised as the domain's images were."""

    domain: str
    """Its name."""

    top: int = 1
    """How many classes of each file."""

    model: BundleModel = None

    def run(self) -> None:
        """Classify."""
        from weightfold.serve.files import predict_files

        found = predict_files(self.source, self.images, self.domain, top=self.top, model=self.model)
        for path, classes in found.items():
            shown = ", ".join(f"{name} {share:.2%}" for name, share in classes)
            print(f"{path}: {shown}")
