"""What this machine computes with: the device, the precision it is fast in, loader processes."""

from __future__ import annotations

import os

import torch

from adapters.contract import ErrorKind, TrainingError


def torch_device(name: str) -> torch.device:
    """Return a torch device. Raises TrainingError(DEVICE) where it is none or not to be had."""
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise TrainingError(ErrorKind.DEVICE, f"'{name}' is not a device of torch") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise TrainingError(
            ErrorKind.DEVICE,
            f"{name} was asked for, but torch finds no GPU that it can use",
            hint="Look at `nvidia-smi` on the worker, or start the job on a CPU.",
        )
    return device


def computes_in_bf16(device: torch.device) -> bool:
    """Tell whether bfloat16 is an instruction of a device; emulated, it is slower than float32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    capabilities = torch.cpu.get_capabilities()
    return any(capabilities.get(name) for name in ("amx_bf16", "avx512_bf16", "bf16"))


def loader_processes(wanted: int | None, device: torch.device, *, ranks: int) -> int:
    """Return how many processes load images for each of some ranks; None leaves it to us."""
    if wanted is not None:
        return wanted
    cores = len(os.sched_getaffinity(0))
    if device.type == "cpu":
        # Training itself uses all cores; on a few of them loader processes only get in the way.
        return 0 if cores <= 4 * ranks else 2
    return min(8, max(1, cores // max(1, torch.cuda.device_count())))
