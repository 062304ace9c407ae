"""Which 8-bit arithmetic a processor has.

x86 multiplies unsigned activations by signed weights. Processors with VNNI or AMX add the products
in 32 bits; those with AVX2 alone add pairs of them in 16 bits first, which saturates: there weights
get 7 bits. ARM's kernels are exact, and prefer both signed. https://onnxruntime.ai/docs/performance/model-optimizations/quantization.html
"""

import platform
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, get_args

Cpu = Literal["x86", "x86-without-vnni", "arm"]
"""The kind of processor that an INT8 file is for."""

_EXACT = {"avx512_vnni", "avx_vnni", "amx_int8"}


def this_cpu() -> Cpu:
    """The kind of this machine's; where it cannot be told, the one whose files hold on any x86."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    flags = next((line for line in lines if line.startswith("flags")), "")
    return kind_of(platform.machine(), flags.split())


def kind_of(machine: str, flags: Iterable[str]) -> Cpu:
    """The kind of a processor.

    Args:
        machine: As `platform.machine` says.
        flags: As /proc/cpuinfo says; of ARM none are needed.
    """
    if machine.lower() in ("arm64", "aarch64"):
        return "arm"
    return "x86" if _EXACT & set(flags) else "x86-without-vnni"


def check_cpu(cpu: str) -> None:
    """Refuse another kind.

    Raises:
        ValueError: It is none of `Cpu`.
    """
    if cpu not in get_args(Cpu):
        raise ValueError(f"cpu={cpu!r}; choose one of {', '.join(get_args(Cpu))}")


def saturating(cpu: Cpu) -> str:
    """Why a file for `cpu` may compute something else on this machine; empty if it does not."""
    if cpu == "x86" and this_cpu() == "x86-without-vnni":
        return (
            "this processor has neither VNNI nor AMX, so that sums of a file for x86 saturate in "
            "ONNX Runtime's 8-bit kernels here; cpu='x86-without-vnni' makes one that holds"
        )
    return ""
