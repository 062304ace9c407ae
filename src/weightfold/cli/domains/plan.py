"""`weightfold domains plan`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from weightfold.cli.options import DataRoot, Model
from weightfold.train.domains.sharing import Sharing, Strategy


@dataclass(frozen=True)
class Plan:
    """Say what domains in one backbone would cost, before anything is trained.

    Prints parameters, bytes and multiply-adds of what is shared and of each domain, beside as many
    independent networks, and which layers the domains own. The plan can be kept for 'train --plan'.
    """

    model: Model

    heads: tuple[str, ...] = ()
    """Domains without data, NAME=CLASSES each: aircraft=100 birds=200."""

    domains: tuple[str, ...] = ()
    """Domains with data instead, NAME=DATASET each: digits=mnist,size=32,rgb=true."""

    strategy: Strategy = "bottom"
    """Which filters the domains own: those nearest the image, those nearest the classifier, or
    random ones."""

    sharing: tyro.conf.OmitArgPrefixes[Sharing] = field(default_factory=Sharing)

    seed: int = 0
    """Of random filters."""

    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width of the images that multiply-adds are for; none: the first data
    set's, or 3 224 224."""

    count_bn: Literal["affine", "stats", "all"] = "affine"
    """What of batch norm counts as a parameter: weight and bias; the running statistics too;
    num_batches_tracked too. Bytes always hold all."""

    keep_shared_copy: bool = False
    """Count a backbone that keeps the filters every domain replaces."""

    out: Path | None = None
    """Write the plan there, as JSON."""

    data_root: DataRoot = None

    def run(self) -> None:
        """Plan, and print the table."""
        import torch
        from rich.console import Console

        from weightfold.files import write_json
        from weightfold.train.domains.inputs import (
            check_shape,
            check_sizes,
            heads_of,
            read_domains,
            seeded_model,
        )

        if bool(self.heads) == bool(self.domains):
            raise ValueError("give the domains either with --heads or with --domains")
        datasets = read_domains(self.domains, self.data_root) if self.domains else {}
        heads = {n: d.num_classes for n, d in datasets.items()} or heads_of(self.heads)
        shapes = [dataset.image_shape for dataset in datasets.values()]
        shape = self.image_shape or (shapes[0] if shapes else (3, 224, 224))
        model = seeded_model(self.model, classes=max(heads.values()), channels=shape[0])
        check_sizes(model, datasets, self.model)
        try:
            plan = self.sharing.plan(model, self.strategy, torch.zeros(1, *shape), self.seed)
        except ValueError:
            check_shape(model, shape, self.model)  # the usual reason, in terms of this command
            raise
        account = plan.account(heads, bn=self.count_bn, keep_shared_copy=self.keep_shared_copy)
        Console().print(account)
        if self.out is not None:
            write_json(self.out, plan.to_json())
            print(f"the plan is in {self.out}")
