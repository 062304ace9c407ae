"""`weightfold bench domains`: what many domains in one backbone cost, in ratios of one run."""

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from statistics import median, quantiles

import torch
import torch.nn.functional as F
from rich.console import Console
from torch import Tensor, nn

from weightfold.bench._measured import Measured, show
from weightfold.bench.expand import STATUS, status_bytes
from weightfold.core.store import save
from weightfold.methods.share.bundle import Bundle
from weightfold.methods.share.net import SharedNet
from weightfold.methods.share.plan import plan_sharing
from weightfold.methods.share.tuning import tune
from weightfold.methods.share.verb import share
from weightfold.nets import build
from weightfold.serve.engine import Engine
from weightfold.timing import Latency, alternate

MODEL, CLASSES, FRACTION = "mobilenet_v2", 100, 0.2
DOMAINS, IMAGES, TRAIN_SIZE = 5, 16, 32
MIXED, SERVE_SIZE = 20, 64
MANY = 100
SWAPS = 200


def bench_domains(
    *, threads: int = 0, repeats: int = 20, folder: Path | None = None
) -> list[Measured]:
    """Measure training, mixed batches, swaps, loading and memory of MobileNetV2 at 20%.

    Args:
        threads: Threads of torch; 0 keeps torch's number.
        repeats: Timed rounds; medians are reported.
        folder: Writes bench.json there.

    Raises:
        ValueError: `repeats` below 4.
    """
    if repeats < 4:
        raise ValueError(f"repeats={repeats}; a median needs at least 4 rounds")
    if threads:
        torch.set_num_threads(threads)
    console, rows = Console(), list[Measured]()
    with console.status("bench domains"):
        for strategy in ("bottom", "random", "top"):
            rows.append(_training(strategy, repeats))
        for strategy in ("bottom", "random", "top"):
            rows += _mixed(strategy, repeats)
        rows += _swap()
        with _bundle(DOMAINS) as path:
            rows.append(_cold_load(path, repeats))
        if STATUS.exists():
            with _bundle(MANY) as path:
                rows.append(_memory(path))
    about = f"{MODEL} with {FRACTION:.0%} of its convolution weights own"
    show(rows, console, about, repeats=repeats, folder=folder)
    return rows


def _nets(strategy: str, domains: int = DOMAINS) -> tuple[nn.Module, SharedNet]:
    """The plain network, and many domains in it."""
    torch.manual_seed(0)
    model = build(MODEL, num_classes=CLASSES)
    plan = plan_sharing(model, strategy, FRACTION)  # type: ignore[arg-type]
    return model, share(model, {f"d{i}": CLASSES for i in range(domains)}, plan)


def _training(strategy: str, repeats: int) -> Measured:
    """A step of all domains beside one of the plain network on as many images."""
    plain, net = _nets(strategy)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(DOMAINS * IMAGES, 3, TRAIN_SIZE, TRAIN_SIZE, generator=generator)
    labels = torch.randint(CLASSES, (DOMAINS * IMAGES,), generator=generator)
    batches = dict(zip(net.domains, images.split(IMAGES), strict=True))
    targets = dict(zip(net.domains, labels.split(IMAGES), strict=True))

    def stepper(module: nn.Module, loss: Callable[[], Tensor]) -> Callable[[], None]:
        optimizer = torch.optim.SGD(module.parameters(), lr=1e-3, momentum=0.9, foreach=True)

        def step() -> None:
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()

        return step

    def together() -> Tensor:
        losses = [F.cross_entropy(y, targets[name]) for name, y in net(batches).items()]
        return torch.stack(losses).sum()

    times = alternate(
        {
            "plain": stepper(plain, lambda: F.cross_entropy(plain(images), labels)),
            "domains": stepper(net, together),
        },
        warmup=3,
        repeats=repeats,
    )
    return Measured(
        f"step of {DOMAINS} domains x {IMAGES} images, {strategy} / plain step on all",
        times["domains"].median_ms / times["plain"].median_ms,
        "x",
        1.15,
        note=f"{TRAIN_SIZE} px, plain {times['plain'].median_ms:.0f} ms",
    )


@torch.inference_mode()
def _mixed(strategy: str, repeats: int) -> list[Measured]:
    """A batch of many domains beside the same batch in one, and beside a loop over domains."""
    _, net = _nets(strategy)
    net.eval()
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(MIXED, 3, SERVE_SIZE, SERVE_SIZE, generator=generator)
    ids = torch.arange(MIXED) % DOMAINS
    parts = {name: images[ids == index] for index, name in enumerate(net.domains)}
    choices = tune(net, images, ids)
    segments = sum(choice.kernel == "segments" for choice in choices.values())
    with net.hold():
        times = _serving(net, images, ids, parts, repeats)
    one, mixed, loop = (times[key].median_ms for key in ("one", "mixed", "loop"))
    what = f"{MIXED} images of {DOMAINS} domains, {strategy}"
    note = f"{SERVE_SIZE} px, one domain {one:.0f} ms, {segments}/{len(choices)} layers by segment"
    return [
        Measured(f"{what} / all of one domain", mixed / one, "x", 1.3, note=note),
        Measured(f"loop over domains / {what}", loop / mixed, "x", 1.6, higher=True),
    ]


def _serving(
    net: SharedNet, images: Tensor, ids: Tensor, parts: Mapping[str, Tensor], repeats: int
) -> dict[str, Latency]:
    """The three ways, the stacked tensors of a set of domains held, as the engine does."""
    runs = {
        "one": lambda: net(images, domain=net.domains[0]),
        "mixed": lambda: net(images, domain=ids),
        "loop": lambda: [net(x, domain=name) for name, x in parts.items()],
    }
    return alternate(runs, warmup=3, repeats=repeats)


@torch.inference_mode()
def _swap() -> list[Measured]:
    """What another resident domain needs before the network runs: its tensors, by reference."""
    _, net = _nets("bottom")
    chart, seconds, new = net.eval().sharing, list[float](), 0
    storages = {t.untyped_storage().data_ptr() for t in (*net.parameters(), *net.buffers())}
    for index in range(SWAPS):
        begin = time.perf_counter()
        operands = chart.operands(domain=net.domains[index % DOMAINS])
        seconds.append(time.perf_counter() - begin)
        new += sum(
            t.untyped_storage().nbytes()
            for t in operands.values()
            if t.untyped_storage().data_ptr() not in storages
        )
    cuts = quantiles(seconds, n=100)
    note = f"p99 {cuts[98] * 1e3:.2f} ms over {SWAPS} swaps"
    return [
        Measured("swap between resident domains", cuts[49] * 1e3, "ms", 1.0, note=note),
        Measured("bytes allocated by it", new, "bytes", 0),
    ]


@contextmanager
def _bundle(domains: int) -> Iterator[Path]:
    """A saved net of so many domains."""
    _, net = _nets("bottom", domains)
    with tempfile.TemporaryDirectory() as name:
        save(net, Path(name) / "bundle")
        yield Path(name) / "bundle"


def _cold_load(path: Path, repeats: int) -> Measured:
    """From a bundle just opened to the tensors in memory, hash checked."""
    seconds = []
    for _ in range(repeats):
        bundle = Bundle(path)
        begin = time.perf_counter()
        delta: Mapping[str, Tensor] = bundle.delta("d0")
        total = sum(float(t.sum()) for t in delta.values())
        seconds.append(time.perf_counter() - begin)
        assert total == total
    size = Bundle(path).sizes().domains["d0"]
    note = f"{size / 1e6:.2f} MB, hash checked, every page read; the file in the system's cache"
    return Measured("cold load of one delta", median(seconds) * 1e3, "ms", 20, note=note)


def _memory(path: Path) -> Measured:
    """Resident memory of an engine with all its domains in use, in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        grown = pool.submit(_grown, path).result()
    payload = Bundle(path).sizes().total
    note = f"{grown / 1e6:.0f} MB grown, {payload / 1e6:.0f} MB of tensors"
    return Measured(
        f"memory of {MANY} domains / their tensors", grown / payload, "x", 1.05, note=note
    )


def _grown(path: Path) -> int:
    """Bytes that a process grows by when every domain has answered."""
    torch.set_num_threads(1)
    model = build(MODEL, num_classes=CLASSES).eval()
    image = torch.zeros(3, TRAIN_SIZE, TRAIN_SIZE)
    with torch.inference_mode():
        model(image[None])
    before = status_bytes("VmRSS")
    engine = Engine(path, model)
    for name in engine.domains:
        engine.predict([image], [name])
    return status_bytes("VmRSS") - before
