"""`weightfold compare`."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from weightfold.cli.options import Data, DataRoot, Jobs, Model, On
from weightfold.cli.presets import Preset
from weightfold.cli.scan import help_of, variant_lines
from weightfold.train.recipe import RECIPES, Recipe


@dataclass(frozen=True)
class Compare:
    """Train a compact network plainly and in expanded coordinates, over several seeds.

    Prints one table: accuracy and its spread over the seeds, the difference to the first variant
    seed by seed with its 95% interval, parameters while training and deployed, time per step.
    The folder gets the numbers (results.csv, runs.csv, results.json), curves.png, a page that
    shows it all (index.html), and in deployed/ the best variant's plain network as safetensors and
    ONNX. Decide on variants, seeds and recipe before you look at results.
    """

    model: Model

    data: Data

    folder: Path
    """Where results go. One that holds another comparison is refused; one that holds this
    comparison, interrupted, is gone on with."""

    variants: Annotated[
        tuple[str, ...],
        tyro.conf.arg(
            help="Ways to make and train the network, compared with the first of them. Variants:\n"
            + help_of(variant_lines())
        ),
    ] = ("compact", "ck,rate=4", "cl,rate=4")

    task: str = "classify"
    """What is learnt, of data that has targets for it: see 'weightfold train --help'."""

    seeds: int = 5
    """How many seeds: 0, 1, 2, ... At least 2. Each seeds initial weights, order of the data and
    augmentation, so that variants are compared seed by seed."""

    match: Literal["epochs", "time"] = "epochs"
    """What the variants have in common: the recipe's epochs; or the time, so that all but the
    slowest get more epochs, by the ratio of step times measured at first."""

    data_root: DataRoot = None

    on: On = "local"

    jobs: Jobs = None

    preset: Annotated[Preset, tyro.conf.arg(name="recipe")] = "digits"
    """Preset of the hyperparameters. Those below are its values; give one to change it."""

    recipe: tyro.conf.OmitArgPrefixes[Recipe] = RECIPES["digits"]

    def run(self) -> None:
        """Compare, and print the table."""
        from weightfold.lab.compare import compare
        from weightfold.lab.run import Execution

        comparison = compare(
            self.model,
            self.data,
            self.variants,
            seeds=self.seeds,
            recipe=self.recipe,
            folder=self.folder,
            task=self.task,
            match=self.match,
            execution=Execution(self.on, self.jobs, self.data_root),
        )
        print(comparison)
        print(f"everything is in {comparison.page}")
