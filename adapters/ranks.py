"""Training on several devices of one host: a process each, of which the first one reports.

A job's ``compute_device`` names them: 'cuda:0,1' is two GPUs, 'cpu*2' two processes on the CPU,
which the tests use. Each process is a rank of torch.distributed (NCCL between GPUs, Gloo between
CPUs), so a framework's own data parallelism works in it. The ranks are forked here and stay in the
process group of the child that forks them: what kills the child kills them.

One rank that fails or dies ends all, with its error. A request to stop reaches rank 0 only, and
:meth:`Rank.agree` makes all of them obey it at the same step.
"""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist

from adapters.contract import ErrorKind, Reporter, StopReason, TrainingError, TrainingJob
from adapters.failures import as_training_error

POLL_SECONDS = 0.1
# When one fails the others fail too, for want of it: so long is waited for the one that began.
CAUSE_SECONDS = 2.0
COLLECTIVE_TIMEOUT = timedelta(minutes=30)  # rank 0 alone writes checkpoints, others wait for it

_KEPT = "kept"  # the answer to an epoch's metrics
_STOPS = (None, StopReason.AFTER_EPOCH, StopReason.SHUTDOWN, StopReason.NOW)  # later ones win
_GPUS = re.compile(r"cuda:(\d+(?:,\d+)+)")
_CPUS = re.compile(r"cpu\*([1-9]\d?)")

_T = TypeVar("_T")


@dataclass(frozen=True)
class Rank:
    """One of the processes that train together; alone, it asks nobody."""

    device: str = "cpu"
    number: int = 0
    total: int = 1

    def sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """Return the sum of all ranks' tensors, the same on each."""
        if self.total > 1:
            tensor = tensor.clone()
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: _T) -> list[_T]:
        """Return what each rank has, in the order of the ranks."""
        if self.total == 1:
            return [value]
        gathered: list[Any] = [None] * self.total
        dist.all_gather_object(gathered, value)
        return gathered

    def share(self, module: torch.nn.Module) -> None:
        """Give rank 0's buffers, batch statistics above all, to every rank."""
        if self.total > 1:
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)

    def agree(self, stop: StopReason | None) -> StopReason | None:
        """Return the hardest request to stop that any rank has; all call it at the same place."""
        if self.total == 1:
            return stop
        code = torch.tensor(_STOPS.index(stop))
        dist.all_reduce(code, op=dist.ReduceOp.MAX)
        return _STOPS[int(code)]

    def first(self, work: Callable[[], _T]) -> _T:
        """Do work on rank 0 before the others do it: they find what it downloaded."""
        if self.number:
            self.agree(None)
            return work()
        done = work()
        self.agree(None)
        return done


def devices_of(compute_device: str) -> tuple[str, ...]:
    """Return each device that a job's ``compute_device`` names."""
    if found := _GPUS.fullmatch(compute_device):
        return tuple(f"cuda:{index}" for index in found[1].split(","))
    if found := _CPUS.fullmatch(compute_device):
        return ("cpu",) * int(found[1])
    return (compute_device,)


def on_ranks(
    work: Callable[[Rank, Reporter], _T],
    *,
    job: TrainingJob,
    reporter: Reporter,
    devices: Sequence[str],
    apart: bool = False,
) -> _T:
    """Do work once a device and return what rank 0 returns.

    On one device it is done in this process, unless it is to be done ``apart``: what forks other
    ranks afterwards must not have used a GPU itself.

    Raises the TrainingError of the rank that failed first, as ``adapters.failures`` makes it.
    """
    if len(devices) == 1 and not apart:
        return work(Rank(devices[0]), reporter)
    ranks = [Rank(device, number, len(devices)) for number, device in enumerate(devices)]
    context = multiprocessing.get_context("fork")  # the frameworks are imported already
    stop = context.Value("i", 0)
    members: list[_Member] = []
    with tempfile.TemporaryDirectory(prefix="modelyard-ranks-") as folder:
        try:
            for rank in ranks:
                ours, theirs = context.Pipe()
                arguments = (work, rank, job, Path(folder) / "meeting", theirs, stop)
                process = context.Process(target=_run_rank, args=arguments)
                process.start()
                theirs.close()  # so that its end is seen here
                members.append(_Member(rank, process, ours))
            result: _T = _follow(members, reporter=reporter, stop=stop)
            return result
        finally:
            for member in members:
                member.process.kill()
                member.process.join()
                member.link.close()


@dataclass
class _Member:
    """A rank as the process sees it that started it."""

    rank: Rank
    process: BaseProcess
    link: Connection
    done: bool = False
    result: Any = None
    error: TrainingError | None = None
    died: bool = False  # without a word


def _follow(members: Sequence[_Member], *, reporter: Reporter, stop: Any) -> Any:
    """Pass on what rank 0 reports until all are done. Raises the TrainingError of a rank."""
    give_up_at = None
    while not all(member.done for member in members):
        stop.value = _STOPS.index(reporter.should_stop())
        going_on = [member for member in members if not member.done]
        wait([member.link for member in going_on], timeout=POLL_SECONDS)
        for member in going_on:
            _listen(member, reporter)
        failed = [member for member in members if member.error is not None]
        if failed and give_up_at is None:
            give_up_at = time.monotonic() + CAUSE_SECONDS
        if give_up_at is not None and time.monotonic() > give_up_at:
            break
    _raise_the_cause(members)
    return members[0].result


def _listen(member: _Member, reporter: Reporter) -> None:
    exit_code = member.process.exitcode  # looked at first: what it said last is read after
    try:
        while not member.done and member.link.poll():
            name, values = member.link.recv()
            if name == "result":
                member.result, member.done = values, True
            elif name == "error":
                member.error, member.done = TrainingError(**values), True
            else:
                arguments, keywords = values
                getattr(reporter, name)(*arguments, **keywords)
                if name == "metrics":
                    member.link.send(_KEPT)
    except EOFError:
        member.process.join()
        exit_code = member.process.exitcode
    if exit_code is not None and not member.done:
        member.error, member.done, member.died = _death(member.rank, exit_code), True, True


def _raise_the_cause(members: Sequence[_Member]) -> None:
    """Raise the error that began it: a death, else what has a kind of its own, else the first."""
    errors = [(not member.died, member.error) for member in members if member.error is not None]
    if errors:
        raise min(errors, key=lambda error: (error[0], _follows_from_others(error[1])))[1]


def _follows_from_others(error: TrainingError) -> bool:
    """Tell whether a rank fails so for want of another: its exchange broke off, by Gloo or NCCL."""
    return error.kind == ErrorKind.FRAMEWORK or "NCCL" in error.message


def _death(rank: Rank, exit_code: int) -> TrainingError:
    how = f"ended with exit code {exit_code}"
    if exit_code < 0:
        how = f"was killed by {signal.Signals(-exit_code).name}"
    return TrainingError(
        ErrorKind.CHILD_DIED,
        f"The process of {rank.device}, {rank.number + 1} of {rank.total}, {how}",
        hint="The log's last lines may tell more; killed by SIGKILL, the host often ran out of "
        "memory.",
    )


def _run_rank(
    work: Callable[[Rank, Reporter], Any],
    rank: Rank,
    job: TrainingJob,
    meeting: Path,
    link: Connection,
    stop: Any,
) -> None:
    """Be a rank; the target of a forked process."""
    try:
        _join(rank, meeting)
        reporter: Reporter = _Silent() if rank.number else _Relay(link, stop)
        link.send(("result", work(rank, reporter)))
    except Exception as error:
        told = as_training_error(error, job)
        if told is not error and told.kind in (ErrorKind.FRAMEWORK, ErrorKind.DEVICE):
            traceback.print_exc()  # into the job's log
        link.send(("error", told.to_json()))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # not through the interpreter's exit: threads of a broken group may hang


def _join(rank: Rank, meeting: Path) -> None:
    """Meet the other ranks over a file: no port is open to other hosts."""
    os.environ.update(
        RANK=str(rank.number),
        LOCAL_RANK=str(rank.number),
        WORLD_SIZE=str(rank.total),
        LOCAL_WORLD_SIZE=str(rank.total),
    )
    if sys.platform == "linux":
        for name in ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"):
            os.environ.setdefault(name, "lo")
    if rank.device == "cpu":
        torch.set_num_threads(max(1, torch.get_num_threads() // rank.total))
    else:
        torch.cuda.set_device(rank.device)
    dist.init_process_group(
        "gloo" if rank.device == "cpu" else "cpu:gloo,cuda:nccl",
        init_method=meeting.as_uri(),
        rank=rank.number,
        world_size=rank.total,
        timeout=COLLECTIVE_TIMEOUT,
    )


class _Relay:
    """Rank 0's reporter: its calls are made again by the process that started the ranks."""

    def __init__(self, link: Connection, stop: Any) -> None:
        self._link = link
        self._stop = stop

    def _pass_on(self, name: str, *arguments: Any, **keywords: Any) -> None:
        self._link.send((name, (arguments, keywords)))

    def progress(self, **values: Any) -> None:
        self._pass_on("progress", **values)

    def metrics(self, *, epoch: int, values: Mapping[str, float], step: int | None = None) -> None:
        self._pass_on("metrics", epoch=epoch, values=dict(values), step=step)
        self._link.recv()  # the checkpoint that follows must not be ahead of them

    def decided(self, name: str, value: float | str, *, why: str) -> None:
        self._pass_on("decided", name, value, why=why)

    def artifact(self, path: Path, *, kind: str) -> None:
        self._pass_on("artifact", path, kind=kind)

    def log(self, line: str) -> None:
        self._pass_on("log", line)

    def should_stop(self) -> StopReason | None:
        return _STOPS[self._stop.value]


class _Silent:
    """The reporter of the other ranks: they have nothing to say that rank 0 does not."""

    def progress(self, **values: Any) -> None: ...

    def metrics(
        self, *, epoch: int, values: Mapping[str, float], step: int | None = None
    ) -> None: ...

    def decided(self, name: str, value: float | str, *, why: str) -> None: ...

    def artifact(self, path: Path, *, kind: str) -> None: ...

    def log(self, line: str) -> None: ...

    def should_stop(self) -> StopReason | None:
        return None
