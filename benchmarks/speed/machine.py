"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Machine:
    """`bf16`  `native`, or `emulated` where the device has no instructions for it"""

    device: str
    processor: str
    cores: int
    threads: int
    torch: str
    bf16: str
    load_average: float

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def describe_machine(device: torch.device) -> Machine:
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return Machine(
        device=gpu or device.type,
        processor=_processor(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        bf16="native" if has_bf16(device) else "emulated",
        load_average=round(os.getloadavg()[0], 2),
    )


def has_bf16(device: torch.device) -> bool:
    """Whether bf16 products are instructions there; torch runs them anyway, if slowly."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if platform.machine() in {"x86_64", "AMD64"}:
        # oneDNN's own answer counts emulation on AVX-512 in
        return bool(torch.cpu._is_amx_tile_supported() or torch.cpu._is_avx512_bf16_supported())
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _processor() -> str:
    described = Path("/proc/cpuinfo")
    lines = described.read_text().splitlines() if described.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
