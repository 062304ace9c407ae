"""Damage every kind of file many times: python tests/mutations.py --count 2000 [NAME ...]."""

import argparse
import importlib
import pkgutil
import tempfile
import time
from pathlib import Path

import mutation
from mutation.harness import Format, attack


def formats() -> dict[str, Format]:
    """Name -> format: `FORMATS` of all modules of tests/mutation."""
    modules = [
        importlib.import_module(f"mutation.{m.name}")
        for m in pkgutil.iter_modules(mutation.__path__)
    ]
    return {f.name: f for module in modules for f in getattr(module, "FORMATS", ())}


def main() -> None:
    """Run, and print what became of the mutations."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", help="formats; none: all")
    parser.add_argument("--count", type=int, default=2000, help="mutations of each format")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    for name in asked.names or formats():
        began = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            tally = attack(formats()[name], Path(folder) / "work", asked.count, asked.seed)
        shown = ", ".join(f"{count} {outcome}" for outcome, count in sorted(tally.items()))
        print(f"{name}: {shown}; {time.perf_counter() - began:.0f} s", flush=True)


if __name__ == "__main__":
    main()
