"""What bringing in a domain costs, beside reading its file: MobileNetV2 at 20%, one thread.

    python benchmarks/swap.py [--rounds 40]

The cap holds one domain of four, so that each call for the next one reads its file. In turn are
timed: a prediction that has to bring in its domain, the same prediction again, and the plain
reading of that file (bytes, sha256, `safetensors.torch.load`). A swap is the first less the second.
Prints medians in milliseconds, and the ratio of swap to reading with its quartiles.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles

import torch
from safetensors.torch import load

import weightfold as wf
from weightfold.nets import build
from weightfold.serve.engine import Engine


def milliseconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return (time.perf_counter() - start) * 1e3


def measure(engine: Engine, rounds: int) -> list[tuple[float, float]]:
    """Milliseconds of a swap and of reading the same file, round by round."""
    bundle, image, found = engine.bundle, torch.zeros(3, 32, 32), []

    def read(name: str) -> None:
        content = (bundle.folder / bundle.manifest["parts"][name]["file"]).read_bytes()
        hashlib.sha256(content).hexdigest()
        load(content)

    for index in range(rounds + 4):
        name = engine.domains[index % 4]
        predict = lambda: engine.predict([image], [name])  # noqa: B023, E731
        cold, warm = milliseconds(predict), milliseconds(predict)
        found.append((cold - warm, milliseconds(lambda: read(name))))  # noqa: B023
    return found[4:]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build("mobilenet_v2", num_classes=100)
    net = wf.share(model, {f"d{i}": 100 for i in range(4)}, wf.plan_sharing(model, "bottom", 0.2))
    with tempfile.TemporaryDirectory() as name:
        wf.save(net, Path(name) / "bundle")
        sizes = Engine(Path(name) / "bundle", model).bundle.sizes()
        room = sizes.shared + sizes.domains["d0"]
        pairs = measure(Engine(Path(name) / "bundle", model, max_bytes=room), rounds)
    swap, read = zip(*pairs, strict=True)
    low, middle, high = quantiles([s / r for s, r in pairs], n=4)
    print(f"a delta of {sizes.domains['d0'] / 1e6:.2f} MB, {rounds} rounds in turn")
    print(f"swap {median(swap):.1f} ms, reading its file {median(read):.1f} ms")
    print(f"swap / reading: {middle:.2f} ({low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
