"""`weightfold domains train`."""

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import tyro

from weightfold.cli.options import DataRoot, Device, Model
from weightfold.cli.presets import Preset
from weightfold.train.domains.joint import Joint
from weightfold.train.domains.sharing import Sharing
from weightfold.train.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class Train:
    """Train domains together in one backbone, and compare ways to share it.

    The folder gets, for each strategy, the record of each seed's run, and in bundle/ the first
    seed's net: the shared tensors and one small file a domain, which the other commands take. One
    page, index.html, compares the strategies: accuracy of each domain and its spread over seeds,
    curves, parameters and bytes. Finished runs are not trained again: name further strategies or
    more seeds, beside those there, to add them to the page.
    """

    model: Model

    domains: tuple[str, ...]
    """NAME=DATASET each: digits=mnist,size=32,rgb=true birds=/path/of/a/folder,size=64. Sizes of
    images may differ, channels not."""

    folder: Path
    """Where results go; runs there that were trained otherwise are refused."""

    strategies: tuple[Literal["bottom", "top", "random", "independent"], ...] = ("bottom",)
    """Which filters the domains own: those nearest the image, those nearest the classifier, or
    random ones, drawn anew for each seed. independent: one whole network per domain, trained for
    as many steps."""

    sharing: tyro.conf.OmitArgPrefixes[Sharing] = field(default_factory=Sharing)

    plan: Path | None = None
    """A plan that 'plan --out' wrote, instead of a strategy and the sharing options."""

    weights: Path | None = None
    """Safetensors file of a plain network's state_dict to start from, such as torchvision's; a
    classifier of other classes in it is left out."""

    seeds: int = 1
    """How many seeds."""

    seed: int = 0
    """The first of them. Each seeds initial weights, order of the data, augmentation, sampler and
    validation split."""

    validation: int | float = 0
    """Training images (500) or share of them (0.1) of each domain held out to choose the best epoch
    by; 0: none."""

    unflipped: tuple[str, ...] = ()
    """Domains whose images are not mirrored although the recipe does it: digits, signs."""

    device: Device = "auto"

    devices: int = 1
    """Processes that share every batch, each on a device of its own."""

    precision: Literal["32-true", "16-mixed", "bf16-mixed"] = "32-true"
    """Of the forward pass; weights stay in float32."""

    tensorboard: bool = False
    """Also log to the runs' folders in TensorBoard's format."""

    data_root: DataRoot = None

    joint: tyro.conf.OmitArgPrefixes[Joint] = field(default_factory=Joint)

    preset: Annotated[Preset, tyro.conf.arg(name="recipe")] = "digits"
    """Preset of the hyperparameters. Those below are its values; give one to change it."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["digits"]

    def run(self) -> None:
        """Train, print the table, write the page."""
        from weightfold.lab.strategies import study_domains
        from weightfold.lab.study import Study
        from weightfold.train.domains.inputs import read_domains, read_plan

        study = Study(
            model=self.model,
            recipe=self.recipe,
            strategies=self.strategies,
            sharing=self.sharing,
            plan=None if self.plan is None else read_plan(self.plan),
            weights=self.weights,
            seeds=range(self.seed, self.seed + self.seeds),
            validation=self.validation,
            unflipped=self.unflipped,
            joint=self.joint,
            device=self.device,
            devices=self.devices,
            precision=self.precision,
            tensorboard=self.tensorboard,
        )
        study.check()
        datasets = read_domains(self.domains, self.data_root)
        told = self if self.plan else replace(self, sharing=self.sharing.settled)
        asked = json.loads(json.dumps(asdict(told), default=str))
        found = study_domains(study, datasets, self.folder, asked=asked)
        print(found)
        for bundle in found.bundles:
            print(f"bundle: {bundle}")
        print(f"everything is in {found.page}")
