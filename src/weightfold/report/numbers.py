"""Numbers as text, for pages, tables, figures and the command line: one place for all of them."""

from math import isfinite, isnan

from weightfold.report.statistics import Paired, Summary

MISSING = "-"
"""What stands for a number that there is not."""


def number(value: float | None, digits: int = 2, *, unit: str = "", signed: bool = False) -> str:
    """A number with its unit: "1,234.50 ms", "+0.3 points", "-" for None.

    Args:
        value: In the unit; NaN and infinities are written as such.
        digits: After the decimal point.
        unit: Set behind a space, "%" without one; "" for none.
        signed: Also write the plus of a positive number.
    """
    if value is None:
        return MISSING
    if not isfinite(value):
        text = "nan" if isnan(value) else "∞" if value > 0 else "-∞"
    else:
        rounded = round(value, digits) + 0.0  # no "-0.00"
        text = f"{rounded:{'+' if signed else ''},.{digits}f}"
    return f"{text}{'' if unit in ('', '%') else ' '}{unit}"


def percent(share: float | None, digits: int = 1, *, signed: bool = False) -> str:
    """A share in [0, 1], or a difference of shares, as a percentage: "73.5%"."""
    return number(None if share is None else 100 * share, digits, unit="%", signed=signed)


def mean_and_spread(
    found: Summary | None, digits: int = 2, *, unit: str = "", factor: float = 1
) -> str:
    """Mean and standard deviation over seeds: "71.05 ± 0.42%"; the mean alone of one seed.

    Args:
        found: In a unit that `factor` brings to `unit`; None: "-".
        digits: After the decimal point.
        unit: As for `number`.
        factor: 100 for shares as percentages.
    """
    if found is None:
        return MISSING
    mean = number(factor * found.mean, digits)
    if found.std is None:
        return number(factor * found.mean, digits, unit=unit)
    return f"{mean} ± {number(factor * found.std, digits, unit=unit)}"


def interval(
    low: float | None,
    high: float | None,
    digits: int = 2,
    *,
    signed: bool = False,
    within: tuple[float, float] | None = None,
) -> str:
    """An interval, "[486, 618]"; "" if one end is not known.

    Args:
        low: Lower end.
        high: Upper end.
        digits: After the decimal point.
        signed: As for `number`.
        within: What the quantity cannot leave, (0, 100) for a percentage: the ends are kept in it.
    """
    if low is None or high is None:
        return ""
    if within is not None:
        low, high = (min(max(end, within[0]), within[1]) for end in (low, high))
    return f"[{number(low, digits, signed=signed)}, {number(high, digits, signed=signed)}]"


def difference(found: Paired, digits: int = 2, *, unit: str = "", factor: float = 1) -> str:
    """A paired difference: "+2.30 points, 95% [+1.10, +3.60], 5 seeds"; "+0.50 points, one seed".

    Args:
        found: The difference; its mean and interval are multiplied by `factor`.
        digits: After the decimal point.
        unit: As for `number`.
        factor: Above 0; 100 for shares as percentage points.
    """
    scaled = found.scaled(factor)
    text = number(scaled.mean, digits, unit=unit, signed=True)
    if scaled.low is None:
        return f"{text}, one seed"
    ends = interval(scaled.low, scaled.high, digits, signed=True)
    return f"{text}, {scaled.level:.0%} {ends}, {scaled.n} seeds"


def count(value: int, of: str) -> str:
    """A number of things: "1 seed", "3 seeds", "1,024 images"; `of` is the singular."""
    return f"{value:,} {of}{'' if value == 1 else 's'}"


def size(bytes_: float) -> str:
    """A size in bytes: "512 B", "3.4 kB", "2.5 MB", "1.2 GB" (powers of 1,000)."""
    for unit, power in (("GB", 9), ("MB", 6), ("kB", 3)):
        if bytes_ >= 10**power:
            return number(bytes_ / 10**power, 1, unit=unit)
    return number(bytes_, 0, unit="B")


def duration(seconds: float) -> str:
    """A time: "42 s", "3 min 20 s", "2 h 5 min"; below 10 seconds with a decimal."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
