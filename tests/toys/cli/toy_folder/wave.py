"""A toy: a command."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Wave:
    """Wave somebody."""

    name: str
    """Whom."""

    def run(self) -> None:
        print(f"bye {self.name}")
