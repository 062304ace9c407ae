"""Figures 2 to 7 on architectural bias: convolutional networks set free (d'Ascoli et al. 2019)."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

from weightfold.lab.claims import Check
from weightfold.lab.experiment import SHARE, Claim, Estimate, Experiment, Line, Preset, Quantity
from weightfold.lab.figures import dots
from weightfold.lab.measures import by_probe
from weightfold.lab.printed import Printed, read_paper
from weightfold.lab.probing import Probing, calling
from weightfold.lab.results import Results
from weightfold.lab.verdicts import Comparison, Verdict, compared, p_of, verdict
from weightfold.report.numbers import number
from weightfold.report.statistics import paired, summarize
from weightfold.train.recipe import Recipe

PAPER = (
    "d'Ascoli, Sagun, Bruna and Biroli, Finding the Needle in the Haystack with Convolutions: on "
    "the benefits of architectural bias, NeurIPS 2019"
)
NUMBERS = read_paper(Path(__file__).with_name("dascoli2019.toml"))

# Sizes of the preset cpu.
CPU_MODEL, CPU_DATA, CPU_TEST = "vanilla_cnn,size=16,width=8,stride=1", "cifar10,size=16", 2000
CPU_TRAIN, CPU_BATCH, CPU_EPOCHS, CPU_RELAXED, CPU_SEEDS = 5000, 50, 40, 20, 3
CPU_TIMES, FEW = 8, (0, 7, 40)

SGD = Recipe(
    epochs=150, batch_size=250, lr=0.1, momentum=0.0, schedule="constant", crop_padding=0,
    flip=False,
)  # fmt: skip
"""The paper's: nothing besides."""
ADAM = replace(SGD, optimizer="adamw", lr=1e-3, momentum=0.9)
"""Rate ours; the paper's is not known."""


def _call(recipe: Recipe, **options: Any) -> dict[str, Probing]:
    """The same call in every size; `cpu_times` are the relax times of the preset cpu."""
    cpu_times = options.pop("cpu_times", None)
    few = {} if cpu_times is None else {"relax_at": cpu_times}
    return {
        "cpu": calling(
            "relax", CPU_MODEL, f"{CPU_DATA},limit={CPU_TRAIN}",
            recipe=replace(recipe, epochs=CPU_EPOCHS, batch_size=CPU_BATCH),
            test_limit=CPU_TEST, epochs=CPU_RELAXED, times=CPU_TIMES, **few, **options,
        ),
        "paper": calling("relax", "vanilla_cnn", "cifar10", recipe=recipe, times=20, **options),
    }  # fmt: skip


def _smoke(**options: Any) -> dict[str, Probing]:
    return {
        "smoke": calling(
            "relax", "vanilla_cnn,size=16,width=2,stride=1", "digits,size=16,limit=150",
            recipe=replace(SGD, epochs=3, batch_size=50), epochs=2, times=3, lr=0.01,
            curvature=20, points=3, test_limit=50, **options,
        )
    }  # fmt: skip


def _printed() -> dict[str, Printed]:
    return {
        "cnn": NUMBERS.cell("Section 4", "CNN", "accuracy"),
        "scratch": NUMBERS.cell("Section 4.1", "FCN", "accuracy"),
        "untrained": NUMBERS.cell("Section 4.1", "eFCN", "untrained"),
        "best_time": NUMBERS.cell("Section 4.1", "eFCN", "best_time"),
        "delta": NUMBERS.cell("Section 4", "eFCN", "delta"),
        "delta_scratch": NUMBERS.cell("Section 4", "FCN", "delta"),
    }


PLAIN = "SGD, the paper's rate"
LINES = (
    Line(PLAIN, _call(SGD, lr=0.01) | _smoke(), published=_printed()),
    Line(
        "Adam",
        _call(ADAM, lr=1e-4, optimizer="adamw", cpu_times=FEW),
        note="1e-3, and 1e-4 once relaxed: rates are ours.",
        seeds=1,
    ),
    Line(
        "SGD, the fair rate",
        _call(SGD, lr=0.1, rate="fair", scratch=False, cpu_times=FEW) | _smoke(rate="fair"),
        note="Ours: as fast on the subspace as the convolutional network was. It diverged within "
        "ten steps in a trial, and at a tenth of it: the other directions do not bear that rate.",
        seeds=1,
    ),
    Line(
        "SGD, a hundredth of the fair rate",
        _call(SGD, lr=0.001, rate="fair", scratch=False, cpu_times=FEW),
        note="Ours: the largest power of ten that did not diverge in a trial.",
        seeds=1,
    ),
    Line(
        "locally connected",
        _call(SGD, lr=0.01, space="local", cpu_times=FEW) | _smoke(space="local"),
        note="Ours: weight sharing is relaxed, locality kept.",
        seeds=1,
    ),
    Line(
        "beta-lasso",
        _call(SGD, lr=0.01, lasso=5e-6, cpu_times=FEW) | _smoke(lasso=5e-6),
        note="Ours: the rival of today (arXiv:2007.13657), for as many epochs as the others, not "
        "its 4,000.",
        seeds=1,
    ),
    Line(
        "supplement: AlexNet, Adam",
        not_run="AlexNet for 32-pixel images is not among the networks here; give your own with "
        "'weightfold probe relax,optimizer=adamw --model module:function --data cifar100'",
    ),
)


def _over(of: Callable[[Any], Sequence[float] | None]) -> Callable[[Sequence[Any]], Any]:
    def estimate(records: Sequence[Any]) -> Estimate | None:
        values = of(records[0])
        if not values:
            return None
        found = summarize(list(values))
        return Estimate(found.mean, found.std, n=len(values))

    return by_probe({"relax": estimate})


def _accuracies(found: Any, time: int | None) -> list[float]:
    return [100 * v for v in found.values(time, lambda s: s.accuracy).values()]


def _largest_delta(found: Any) -> list[float]:
    by_seed = {
        seed: [100 * r.after.local for r in found.runs
               if r.seed == seed and r.relaxed_at is not None and r.after]
        for seed in found.seeds
    }  # fmt: skip
    return [max(values) for values in by_seed.values() if values]


def _of(key: str, title: str, of: Callable[[Any], Sequence[float] | None]) -> Quantity:
    return Quantity(key, title, over=_over(of), digits=1, within=SHARE)


MEASURES = (
    _of(
        "best",
        "relaxed, best time (%)",
        lambda f: None if f.best is None else _accuracies(f, f.best),
    ),
    _of("cnn", "CNN (%)", lambda f: [100 * c.accuracy for c in f.convolutional]),
    _of("scratch", "from scratch (%)", lambda f: _accuracies(f, None)),
    _of("untrained", "relaxed at 0 (%)", lambda f: _accuracies(f, 0)),
    Quantity("best_time", "best relax time (epochs)", digits=0,
            over=_over(lambda f: None if f.best is None else [f.best])),
    _of("delta", "largest delta of a relaxed net (%)", _largest_delta),
    _of(
        "delta_scratch",
        "delta from scratch (%)",
        lambda f: [100 * v for v in f.values(None, lambda s: s.local).values()],
    ),
)  # fmt: skip


def _judged(of: Callable[[Any], Verdict]) -> Check:
    """A claim on the first line's finding."""

    def check(results: Results) -> Verdict:
        records = results.records(PLAIN)
        return of(records[0]) if records else verdict(None, f"{PLAIN}: not run")

    return check


def _prior(found: Any) -> Verdict:
    ours = found.values(0, lambda s: s.accuracy)
    others = found.values(None, lambda s: s.accuracy)
    seeds = sorted(ours.keys() & others.keys())
    if not seeds:
        return verdict(None, "relaxed at 0 or from scratch: not run")
    gain = paired([100 * ours[s] for s in seeds], [100 * others[s] for s in seeds])
    return Verdict((compared(gain, "relaxed at 0 minus from scratch, points:"),))


def _between(found: Any) -> Verdict:
    known = [t for t in found.times[1:-1] if found.of(t)]
    if not known:
        return verdict(None, "no relax time between the first and the last")
    best = max(known, key=lambda t: fmean(_accuracies(found, t)))
    gain = found.gain(best).scaled(100)
    return Verdict(
        (
            compared(gain.minus(-1.0), f"relaxed at {best}, chosen on the test set, minus CNN, + 1 "
                     "point for 'matches':"),
        )
    )  # fmt: skip


def _monotone(found: Any) -> Verdict:
    """The largest fall of accuracy below what it was before, per run."""
    falls = {}
    for run in found.runs:
        if run.relaxed_at is not None and run.curve:
            values = [100 * point.accuracy for point in run.curve]
            falls[run.seed, run.relaxed_at] = max(
                max(values[: i + 1]) - value for i, value in enumerate(values)
            )
    if not falls:
        return verdict(None, "no run came to its end")
    worst = max(falls, key=lambda key: falls[key])
    rises = [
        100 * (run.curve[-1].accuracy - run.curve[0].accuracy)
        for run in found.runs
        if run.relaxed_at is not None and run.curve
    ]
    text = (
        f"largest fall {falls[worst]:.1f} points (seed {worst[0]}, relaxed at {worst[1]}); "
        f"{sum(fall <= 2 for fall in falls.values())} of {len(falls)} runs never fall by more than "
        f"2 points; from first to last {min(rises):+.1f} to {max(rises):+.1f} points"
    )
    return verdict("holds" if max(falls.values()) <= 2 else "does not hold", text)


def _deltas(found: Any) -> Verdict:
    means = [
        (t, 100 * fmean(found.values(t, lambda s: s.local).values()))
        for t in found.times
        if found.of(t)
    ]
    if len(means) < 2:
        return verdict(None, "fewer than two relax times")
    values = [value for _, value in means]
    falling = all(a >= b for a, b in pairwise(values))
    text = "delta by relax time: " + ", ".join(f"{t}: {number(v)}%" for t, v in means)
    small = max(values) <= 8
    return Verdict(
        (
            Comparison("holds" if falling else "does not hold", f"falls with relax time; {text}"),
            Comparison("holds" if small else "does not hold", f"at most 8%: {max(values):.2f}%"),
        )
    )


def _sharpness(found: Any) -> Verdict:
    comparisons = []
    for name, title in (("gradient", "gradient norm"), ("eigenvalue", "top eigenvalue")):
        before, after = [], []
        for seed in found.seeds:
            pairs = [
                (getattr(r.before, name), getattr(r.after, name))
                for r in found.runs
                if r.seed == seed and r.relaxed_at is not None and r.before and r.after
            ]
            pairs = [(a, b) for a, b in pairs if a is not None and b is not None]
            if pairs:
                before.append(fmean(a for a, _ in pairs))
                after.append(fmean(b for _, b in pairs))
        drop = paired(before, after) if before else None
        comparisons.append(compared(drop, f"{title}, at relaxation minus after, mean of times:"))
    return Verdict(tuple(comparisons))


def _parts(found: Any) -> Verdict:
    """Off-local weights alone; and what they add to local ones, early relax times."""
    alone, adds = [], []
    early = [t for t in found.times[: max(1, len(found.times) // 2)] if found.of(t)]
    for seed in found.seeds:
        states = [r.after for r in found.runs if r.seed == seed and r.relaxed_at in early]
        states = [s for s in states if s is not None and s.only_local is not None]
        if states:
            alone.append(100 * max(s.only_off_local for s in states))
            adds.append(100 * fmean(s.accuracy - s.only_local for s in states))
    if not alone:
        return verdict(None, "no dense run came to its end")
    chance = 10.0
    useless = paired([chance + 10] * len(alone), alone)
    gain = paired(adds, [0.0] * len(adds))
    return Verdict(
        (
            compared(useless, "off-local alone, below chance + 10 points by:"),
            Comparison(
                compared(gain, "").judged,
                f"all minus local alone, early times: {number(gain.mean, signed=True)} points",
                p_of(gain),
            ),
        )
    )


def _critical(found: Any) -> Verdict:
    known = [(run, delta) for run, delta in found.critical_deviations() if delta is not None]
    total = len(found.critical_deviations())
    if not total:
        return verdict(None, "no path to the network from scratch")
    text = "; ".join(
        f"seed {run.seed}, relaxed at {run.relaxed_at}: {100 * delta:.1f}%" for run, delta in known
    )
    said = f"on {len(known)} of {total} paths accuracy falls to the network from scratch's at delta"
    if not known:
        return verdict("does not hold", f"{said} nowhere before the end")
    return verdict("holds" if len(known) == total else "undecided", f"{said} {text}")


def _draw(results: Results, path: Path) -> None:
    from weightfold.probes.relax.figures import draw_relaxation

    records = results.records(PLAIN)
    if records:
        draw_relaxation(records[0], path)
    else:
        dots(results, path)


RELAX = Experiment(
    name="dascoli2019-relax",
    paper=f"{PAPER}; Figures 2 to 7 and supplement C",
    title="a convolutional network set free in its fully-connected space",
    measures=MEASURES,
    lines=LINES,
    presets={
        "smoke": Preset(1, "Everything: three epochs on 150 of scikit-learn's digits."),
        "cpu": Preset(
            CPU_SEEDS,
            f"A VanillaCNN of 8 channels and stride 1 on {CPU_TRAIN:,} images of CIFAR-10 at 16 "
            f"pixels, batches of {CPU_BATCH} (the paper: 64 channels, all images, 250), "
            f"{CPU_EPOCHS} epochs and {CPU_RELAXED} once relaxed (150 and 100), {CPU_TEST:,} test "
            f"images. Relax times: {CPU_TIMES} with the paper's rate, else {FEW} and one seed. "
            "Padding is folded away: delta of the network from scratch is a little lower so.",
            comparable=False,
        ),
        "paper": Preset(
            1,
            "The paper does not say how many seeds. Estimated: 73.9 million weights, 0.3 GB, "
            "updated in place; 20 relax times of 20,000 steps at about 2.5 ms on an 80 GB GPU, 20 "
            "minutes a line; each line prints its own estimate from a measured step first.",
        ),
    },
    claims=(
        Claim("An untrained CNN's prior beats the fully-connected net.", _judged(_prior)),
        Claim("An intermediate relax time matches or beats the CNN.", _judged(_between)),
        Claim("After relaxing, accuracy rises monotonically.", _judged(_monotone)),
        Claim("Delta falls with the relax time and stays small.", _judged(_deltas)),
        Claim("Gradient norm and top eigenvalue drop after relaxing.", _judged(_sharpness)),
        Claim(
            "Off-local weights alone are useless, together with local ones a gain.",
            _judged(_parts),
        ),
        Claim(
            "There is a critical delta on the way to the fully-connected net.", _judged(_critical)
        ),
    ),
    notes="Delta is the share of the weights' norm that no local weights reach. Monotone: no fall "
    "of more than 2 points, which is about two standard errors of 2,000 images. The numbers beside "
    "ours are of 64 channels and 32 pixels.",
    draw=_draw,
)

EXPERIMENTS = (RELAX,)
