import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

HEAVY = ("torch", "numpy", "sklearn", "matplotlib", "onnx", "lightning_fabric", "timm", "torchao")

HELP = """
import sys
import weightfold.cli
from weightfold.cli import main
from weightfold.cli.scan import commands

assert weightfold.__version__ and dir(weightfold)
assert main(["charts"]) == 0
weightfold.list_probes()
for arguments in [["--help"], *([name, "--help"] for name in commands(weightfold.cli)),
                  ["domains", "train", "--help"], ["--version"], ["trian"]]:
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


@pytest.mark.parametrize("name", ["expand", "fit", "load", "save", "Charted", "Options", "Start"])
def test_names_are_imported_on_use(name):
    import weightfold as wf

    assert getattr(wf, name).__name__ == name


@pytest.mark.parametrize("name", ["data", "nets", "tasks"])
def test_folders_are_imported_on_use(name):
    code = f"import weightfold as wf; assert wf.{name}.__name__ == 'weightfold.{name}'"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_type_checkers_see_the_same_names():
    import weightfold as wf

    stub = Path(wf.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    imported = [node for node in ast.parse(stub).body if isinstance(node, ast.ImportFrom)]
    homes = {alias.asname: node.module for node in imported for alias in node.names}
    assert set(homes) == set(wf.__all__)
    for name, home in homes.items():
        assert getattr(import_module(home), name) is getattr(wf, name)


def test_unknown_name():
    import weightfold as wf

    with pytest.raises(AttributeError, match="expnd"):
        wf.expnd  # noqa: B018
