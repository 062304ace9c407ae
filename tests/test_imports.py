import subprocess
import sys

import pytest

HEAVY = ("torch", "numpy", "sklearn", "matplotlib", "onnx", "lightning_fabric", "timm", "torchao")

HELP = """
import sys
import weightfold
from weightfold.cli import COMMANDS, main

assert weightfold.__version__ and dir(weightfold)
assert main(["charts"]) == 0
for arguments in [["--help"], *([name, "--help"] for name in COMMANDS), ["trian"]]:
    try:
        main(arguments)
    except SystemExit:
        pass
found = [name for name in {heavy} if name in sys.modules]
assert not found, found
"""


def test_import_and_help_load_nothing_heavy():
    subprocess.run(
        [sys.executable, "-c", HELP.format(heavy=HEAVY)], check=True, capture_output=True
    )


@pytest.mark.parametrize("name", ["expand", "load", "save", "Charted"])
def test_names_are_imported_on_use(name):
    import weightfold as wf

    assert getattr(wf, name).__name__ == name


def test_unknown_name():
    import weightfold as wf

    with pytest.raises(AttributeError, match="expnd"):
        wf.expnd  # noqa: B018
