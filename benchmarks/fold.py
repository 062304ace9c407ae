"""Where the fold's time goes: milliseconds to fold each layer of SmallNet-B (k=7), and back.

    python benchmarks/fold.py [--threads 2]

Prints, per layer, the fold alone and with its gradients (best of 20), and the multiply-adds of both
(three times the fold's) per second, to be held against a square matrix product of side 512.
"""

import argparse
import time
from collections.abc import Callable

import torch

import weightfold as wf
from weightfold.methods.expand.algebra import orders
from weightfold.nets import build


def best(run: Callable[[], object], repeats: int = 20) -> float:
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=2)
    torch.set_num_threads(parser.parse_args().threads)
    square = torch.randn(512, 512)
    print(f"matrix product: {512**3 / best(lambda: square @ square) / 1e9:.0f} G/s")
    for conv, rate in (("cl", 2), ("cl", 4), ("cl", 8), ("ck", 4), ("ck", 8)):
        net = wf.expand(build("smallnet_b,kernel_size=7", num_classes=10), rate, conv, seed=0)
        for path in net.charts[0].specs:
            chain = net.charts[0].chain(path)

            def both() -> None:
                chain.zero_grad()  # noqa: B023
                weight, bias = chain.fold()  # noqa: B023
                torch.autograd.backward([weight, bias], [weight, bias])

            macs = orders(tuple(tuple(f.weight.shape) for f in chain.factors))[0][0]
            seconds = best(both)
            print(
                f"{conv} r={rate} {path}: fold {best(chain.fold) * 1e3:.2f} ms, with gradients "
                f"{seconds * 1e3:.2f} ms, {macs / 1e6:.1f} M, {3 * macs / seconds / 1e9:.0f} G/s"
            )


if __name__ == "__main__":
    main()
