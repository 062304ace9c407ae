"""`weightfold bench expand`: what folding on the fly costs, in ratios of alternating steps."""

import gc
import multiprocessing
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from statistics import median

import torch
import torch.nn.functional as F
from rich.box import SIMPLE
from rich.console import Console
from rich.progress import track
from rich.table import Column, Table
from torch import nn

from weightfold.core.charted import Charted
from weightfold.files import write_json
from weightfold.lab.variants import make_net
from weightfold.methods.expand.chart import Expansion
from weightfold.methods.expand.cost import LayerCost, chain_cost
from weightfold.nets import build
from weightfold.trace import trace
from weightfold.train.record import session

BATCH = (128, 3, 32, 32)
STATUS = Path("/proc/self/status")
"""Where Linux tells a process's peak memory; elsewhere it is not measured."""

MEMORY_RUNS = 3

CHAIN_SHARE = 4
"""The chain is timed in one of so many rounds: it is slow, and its ratio large."""


@dataclass(frozen=True)
class Case:
    """A row of the benchmark.

    Attributes:
        model: Network spec.
        variant: Expansion.
        target: The largest charted / compact step ratio aimed at.
    """

    model: str
    variant: str
    target: float


CASES = (
    Case("smallnet_b,kernel_size=7", "cl,rate=2", 1.10),
    Case("smallnet_b,kernel_size=7", "cl,rate=4", 1.20),
    Case("smallnet_b,kernel_size=7", "cl,rate=8", 1.50),
    Case("smallnet_b,kernel_size=7", "ck,rate=4", 1.45),
    Case("smallnet_b,kernel_size=7", "ck,rate=8", 2.0),
    Case("mobilenet_v2,small_image=true", "cl,rate=4", 1.10),
)


@dataclass(frozen=True)
class Result:
    """A measured row; all times are ratios to the compact network's step in the same run.

    Attributes:
        case: What was measured.
        estimate: Multiply-adds of the charted step over the compact one's.
        charted: Forward and backward.
        with_optimizer: The same with SGD's step, momentum 0.9.
        chain_estimate: As `estimate`, for the factors run one after another.
        chain: Forward and backward of the chain; None if not timed.
        memory: Peak memory over that of the compact network plus psi, its gradient and momentum;
            None where the system does not tell.
        compact_ms: Median milliseconds of the compact step, for scale.
    """

    case: Case
    estimate: float
    charted: float
    with_optimizer: float
    chain_estimate: float
    chain: float | None
    memory: float | None
    compact_ms: float


def bench_expand(
    *, threads: int = 0, repeats: int = 20, chain: bool = True, folder: Path | None = None
) -> list[Result]:
    """Time compact, charted and chain steps alternately and print them beside the estimates.

    A step is forward and backward of the cross-entropy on a batch of 128 images of 32 x 32.

    Args:
        threads: Threads of torch; 0 keeps torch's number.
        repeats: Rounds; medians are reported.
        chain: Also time the chain, in one round of `CHAIN_SHARE`.
        folder: Writes bench.json there.
    """
    if repeats < 4:
        raise ValueError(f"repeats={repeats}; a median needs at least 4 rounds")
    if threads:
        torch.set_num_threads(threads)
    results = []
    for case in track(CASES, "bench expand", transient=True):
        results.append(_measure(case, repeats, chain))
        gc.collect()
    Console().print(as_table(results))
    Console().print(
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, medians of {repeats} "
        f"alternating rounds, batch {BATCH}"
    )
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        rows = [asdict(result) for result in results]
        about = {**session(), "threads": torch.get_num_threads(), "repeats": repeats}
        write_json(folder / "bench.json", {"session": about, "results": rows})
    return results


def as_table(results: list[Result]) -> Table:
    """Estimate, measured, target and chain side by side."""
    table = Table(
        Column("network and variant", min_width=26, overflow="fold"),
        "estimate",
        "fold",
        "target",
        "with SGD",
        "chain estimate",
        "chain",
        "memory",
        "compact ms",
        title="step time / compact step time",
        box=SIMPLE,
        padding=(0, 1, 0, 0),
    )
    for r in results:
        table.add_row(
            f"{r.case.model} {r.case.variant}",
            f"{r.estimate:.2f}",
            f"{r.charted:.2f}",
            f"{r.case.target:.2f}",
            f"{r.with_optimizer:.2f}",
            f"{r.chain_estimate:.2f}",
            "" if r.chain is None else f"{r.chain:.1f}",
            "" if r.memory is None else f"{r.memory:.2f}",
            f"{r.compact_ms:.0f}",
        )
    return table


def _net(model: str, variant: str) -> nn.Module:
    return make_net(model, variant, seed=0, num_classes=10, image_shape=BATCH[1:])


def _stepper(net: nn.Module) -> Callable[[], tuple[float, float]]:
    """A function that takes a training step and returns the seconds without and with SGD."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(BATCH, generator=generator)
    y = torch.randint(10, BATCH[:1], generator=generator)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)

    def step() -> tuple[float, float]:
        start = time.perf_counter()
        optimizer.zero_grad()
        F.cross_entropy(net(x), y).backward()
        middle = time.perf_counter()
        optimizer.step()
        return middle - start, time.perf_counter() - start

    return step


def _measure(case: Case, repeats: int, chain: bool) -> Result:
    charted = _net(case.model, case.variant)
    steppers = {"compact": _stepper(_net(case.model, "compact")), "charted": _stepper(charted)}
    slow = {"chain": _stepper(_net(case.model, f"{case.variant},execution=chain"))} if chain else {}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*steppers, *slow)}
    for step in (*steppers.values(), *slow.values()):
        step()
    for index in range(repeats):
        due = [*steppers.items(), *(slow.items() if index % CHAIN_SHARE == 0 else ())]
        for name, step in due[:: 1 if index % 2 else -1]:
            times[name].append(step())
    middle = {
        name: [median(column) for column in zip(*rows, strict=True)] for name, rows in times.items()
    }
    estimate, chain_estimate = estimates(case.model, charted)
    return Result(
        case=case,
        estimate=estimate,
        charted=middle["charted"][0] / middle["compact"][0],
        with_optimizer=middle["charted"][1] / middle["compact"][1],
        chain_estimate=chain_estimate,
        chain=middle["chain"][0] / middle["compact"][0] if chain else None,
        memory=_memory(case),
        compact_ms=middle["compact"][0] * 1e3,
    )


def estimates(model: str, charted: nn.Module) -> tuple[float, float]:
    """Multiply-adds of a step with folds, and with chains, over the compact network's."""
    plain = build(model, num_classes=10)
    costs = layer_costs(plain, charted)
    total = _plain_macs(plain)
    folds = sum(cost.fold for cost in costs.values())
    chains = sum(cost.chain - cost.plain for cost in costs.values())
    return (total + folds) / total, (total + chains) / total


def layer_costs(plain: nn.Module, charted: nn.Module) -> Mapping[str, LayerCost]:
    """Cost of every expanded layer at the benchmark's batch."""
    shapes = trace(plain, torch.empty(BATCH, device="meta")).inputs
    if not isinstance(charted, Charted) or not isinstance(charted.charts[0], Expansion):
        raise TypeError("give a net that wf.expand returned")
    chart = charted.charts[0]
    return {path: chain_cost(chart.chain(path), shapes[path]) for path in chart.specs}


def _plain_macs(plain: nn.Module) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        plain.to("meta").eval()(torch.empty(BATCH, device="meta"))
    return counter.get_total_flops() // 2


def _memory(case: Case) -> float | None:
    """Peak of the charted net over peak of the compact one plus psi, gradient and momentum."""
    if not STATUS.exists():
        return None
    compact, weights = _median_peak(case.model, "compact")
    charted, psi = _median_peak(case.model, case.variant)
    return charted / (compact + 3 * (psi - weights))


@cache
def _median_peak(model: str, variant: str) -> tuple[float, float]:
    """`_peak` in processes of its own; it varies by some 10 MB from one to the next."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
        peaks = [pool.submit(_peak, model, variant).result() for _ in range(MEMORY_RUNS)]
    return median(peak for peak, _ in peaks), peaks[0][1]


def _peak(model: str, variant: str) -> tuple[int, int]:
    """Bytes at the peak of three steps above those before the net was built, and of parameters."""
    torch.set_num_threads(1)
    before = status_bytes("VmRSS")
    net = _net(model, variant)
    step = _stepper(net)
    for _ in range(3):
        step()
    return status_bytes("VmHWM") - before, sum(
        p.numel() * p.element_size() for p in net.parameters()
    )


def status_bytes(field: str) -> int:
    """A field of this process's status, in bytes."""
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[field].split()[0]) * 1024
