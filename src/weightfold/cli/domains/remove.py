"""`weightfold domains remove`."""

from dataclasses import dataclass
from pathlib import Path

import tyro


@dataclass(frozen=True)
class Remove:
    """Remove a domain from a bundle; the files of the others are not touched."""

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    domain: tyro.conf.Positional[str]
    """Its name."""

    def run(self) -> None:
        """Remove it."""
        from weightfold.train.domains.bundles import find_bundle

        bundle = find_bundle(self.source)
        size = bundle.sizes().domains.get(self.domain, 0)
        bundle.remove(self.domain)
        print(f"{self.domain} is gone, {size:,} bytes; left: {', '.join(bundle.domains)}")
