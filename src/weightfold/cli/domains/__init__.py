"""`weightfold domains`: several domains in one backbone. No torch is imported here."""

from dataclasses import dataclass
from typing import Annotated, Any

from tyro.conf import subcommand

from weightfold.cli.domains.add import Add
from weightfold.cli.domains.evaluate import Eval
from weightfold.cli.domains.export import Export
from weightfold.cli.domains.plan import Plan
from weightfold.cli.domains.predict import Predict
from weightfold.cli.domains.remove import Remove
from weightfold.cli.domains.serve import Serve
from weightfold.cli.domains.train import Train

COMMANDS: dict[str, Any] = {
    "plan": Plan,
    "train": Train,
    "eval": Eval,
    "add": Add,
    "remove": Remove,
    "export": Export,
    "predict": Predict,
    "serve": Serve,
}
"""Name -> frozen dataclass, as `weightfold.cli.COMMANDS`."""


@dataclass(frozen=True)
class Domains:
    """Plan, train, store, serve and export many domains in one backbone.

    Every domain owns some filters, its batch norm and its classifier; everything else is shared.
    'weightfold domains COMMAND --help' explains a command. A domain is given as NAME=DATASET, such
    as digits=mnist,size=32,rgb=true or birds=/path/of/a/folder,size=64.
    """

    action: (
        Annotated[Plan, subcommand("plan", description="Say what domains would cost.")]
        | Annotated[Train, subcommand("train", description="Train domains together.")]
        | Annotated[Eval, subcommand("eval", description="Accuracy of each domain.")]
        | Annotated[Add, subcommand("add", description="Train one more domain.")]
        | Annotated[Remove, subcommand("remove", description="Remove a domain.")]
        | Annotated[Export, subcommand("export", description="ONNX, torch.export, plain.")]
        | Annotated[Predict, subcommand("predict", description="Classify image files.")]
        | Annotated[Serve, subcommand("serve", description="Serve predictions over HTTP.")]
    )

    def run(self) -> None:
        """Do it."""
        self.action.run()
