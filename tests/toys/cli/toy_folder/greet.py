"""A toy: a command."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Greet:
    """Greet somebody."""

    name: str
    """Whom."""

    def run(self) -> None:
        print(f"hello {self.name}")
