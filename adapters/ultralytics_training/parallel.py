"""Ultralytics on several devices of one host, in the processes of :mod:`adapters.ranks`.

Left to itself the library writes a script, starts it with torchrun, and the script builds a trainer
of its own, without our data, checkpoints and reports. Here its trainer runs as it does in such a
script, but in forks of this process: with torch's DistributedDataParallel, shared validation and
rank 0 that keeps the checkpoints.
"""

from __future__ import annotations

import sys
from typing import Any

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

import adapters.ultralytics_training.offline  # noqa: F401
from adapters.ranks import Rank

# isort: split
from ultralytics.engine import validator as library_validator


def tell_library(rank: Rank) -> None:
    """Set in a rank's process what the library reads from the environment when it is imported."""
    values = {"RANK": rank.number, "LOCAL_RANK": rank.number, "WORLD_SIZE": rank.total}
    for name, module in list(sys.modules.items()):
        if name == "ultralytics" or name.startswith("ultralytics."):
            for constant in values.keys() & vars(module).keys():
                setattr(module, constant, values[constant])
    if rank.device == "cpu":
        torch.nn.parallel.DistributedDataParallel = _CpuParallel  # type: ignore[assignment,misc]
        library_validator.dist = _CpuCollectives()


def library_device(compute_device: str) -> str:
    """Return a job's devices as the library names them: 'cuda:0,1' is '0,1', 'cpu*2' is 'cpu'."""
    if compute_device.startswith("cpu"):
        return "cpu"
    return compute_device.removeprefix("cuda:") if "," in compute_device else compute_device


class _CpuParallel(DistributedDataParallel):
    """Data parallelism without the device numbers that the library gives, and a CPU has not."""

    def __init__(self, module: torch.nn.Module, device_ids: Any = None, **options: Any) -> None:
        super().__init__(module, **options)


class _CpuCollectives:
    """torch.distributed with a mean, which Gloo lacks."""

    def __getattr__(self, name: str) -> Any:
        return getattr(dist, name)

    def reduce(self, tensor: torch.Tensor, dst: int, op: Any) -> None:
        dist.reduce(tensor, dst=dst, op=dist.ReduceOp.SUM)
        if op == dist.ReduceOp.AVG:
            tensor /= dist.get_world_size()
