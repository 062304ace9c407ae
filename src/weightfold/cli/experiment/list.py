"""`weightfold experiment list`."""

from dataclasses import dataclass


@dataclass(frozen=True)
class List:
    """List the experiments, their presets and how many networks each preset trains."""

    def run(self) -> None:
        """Print them."""
        from weightfold.lab.running import print_experiments
        from weightfold.papers import experiments

        print_experiments(experiments())
