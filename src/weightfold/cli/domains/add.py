"""`weightfold domains add`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from weightfold.cli.options import BundleModel, DataRoot, Device
from weightfold.cli.presets import Preset
from weightfold.train.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class Add:
    """Train one more domain for a bundle, and add it.

    Only what the new domain owns is trained. The shared tensors and the other domains are frozen;
    their files stay byte for byte, which is checked, and one new file is written.
    """

    source: tyro.conf.Positional[Path]
    """A bundle, or the folder of 'domains train' or of one of its strategies that holds it."""

    domain: tyro.conf.Positional[str]
    """NAME=DATASET, such as cars=/path/of/a/folder,size=64."""

    folder: Path | None = None
    """Where the record of the training goes, from which a run that was stopped goes on; none:
    beside the bundle, BUNDLE-add-NAME."""

    from_domain: str | None = None
    """Start from this domain's own filters and batch norm."""

    weights: Path | None = None
    """Start from a plain network's instead: a safetensors file of its state_dict, such as
    torchvision's."""

    seed: int = 0
    """Of the classifier's initial weights, order of the data, augmentation and validation split."""

    head_epochs: int = 0
    """Epochs at first in which only the classifier is trained."""

    validation: int | float = 0
    """Training images (500) or share of them (0.1) held out to choose the best epoch by; 0:
    none."""

    device: Device = "auto"

    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Of the forward pass; weights stay in float32."""

    model: BundleModel = None

    data_root: DataRoot = None

    preset: Annotated[Preset, tyro.conf.arg(name="recipe")] = "digits"
    """Preset of the hyperparameters. Those below are its values; give one to change it."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["digits"]

    def run(self) -> None:
        """Train, add, and say what changed on disk."""
        from weightfold.train.domains.add import Adding, add_domain, check_new
        from weightfold.train.domains.bundles import find_bundle
        from weightfold.train.domains.inputs import read_domains

        options = Adding(
            from_domain=self.from_domain,
            weights=self.weights,
            seed=self.seed,
            head_epochs=self.head_epochs,
            validation=self.validation,
            device=self.device,
            precision=self.precision,
            model=self.model,
        )
        check_new(find_bundle(self.source), self.domain.partition("=")[0].strip(), options)
        ((name, dataset),) = read_domains([self.domain], self.data_root).items()
        found = add_domain(
            self.source, name, dataset, self.recipe, options=options, folder=self.folder
        )
        print(f"{name}: test accuracy {found.accuracy:.2%} after the last epoch")
        print(f"{found.unchanged} files of {found.bundle.folder} are unchanged, byte for byte")
        for file, size in found.new.items():
            print(f"new: {file}, {size:,} bytes; domains: {', '.join(found.bundle.domains)}")
