"""The command line: `weightfold <command>`. No torch is imported before a command runs.

Every file here that has a dataclass with `run` is a command, every folder a command with others.
"""

from weightfold.cli.entry import main as main
