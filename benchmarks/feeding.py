"""What feeding costs: the time to make a batch against a training step of a SmallNet on it.

Both are timed in turns, so that a busy machine slows them alike. Random images of CIFAR-10's size
do, since no time here depends on what they show.

    python benchmarks/feeding.py --threads 2
"""

import statistics
import time

import torch
import tyro

from weightfold.data import Augment, Batches, Examples
from weightfold.nets import build

BATCH = 128


def random_batches(device: str) -> Batches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (50_000, 3, 32, 32), dtype=torch.uint8, generator=generator)
    labels = torch.randint(0, 10, (50_000,), generator=generator)
    return Batches(
        Examples(images, labels),
        batch_size=BATCH,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        augment=Augment(),
        seed=0,
        device=device,
    )


def main(threads: int = 2, steps: int = 40) -> None:
    """Time feeding and training.

    Args:
        threads: Of torch.
        steps: To time, below the 391 of an epoch.
    """
    torch.set_num_threads(threads)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    net = build("smallnet_b,kernel_size=7", num_classes=10).to(device)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)

    def now() -> float:
        if device == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    feeding, training = [], []
    epoch = random_batches(device).epoch(0)
    for _ in range(steps):
        start = now()
        x, y = next(epoch)
        fed = now()
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
        feeding.append(fed - start)
        training.append(now() - fed)

    # The first batch also draws the order of the epoch; the first steps warm up.
    feed, step = statistics.median(feeding[3:]), statistics.median(training[3:])
    print(f"{device}, {threads} threads, medians of {steps - 3} steps of {BATCH} images, 32 x 32")
    print(f"order of an epoch, with a batch  {feeding[0] * 1e3:9.2f} ms")
    print(f"feeding a batch                  {feed * 1e3:9.2f} ms")
    print(f"step of smallnet_b, k=7          {step * 1e3:9.2f} ms")
    print(f"feeding / step                   {feed / step:9.2%}")


if __name__ == "__main__":
    tyro.cli(main)
