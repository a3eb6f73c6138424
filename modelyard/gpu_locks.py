"""A lock for each GPU of a host, so that two workers that may use it never train on it at once.

A file a GPU below ``MODELYARD_HOME/gpus``, named by the GPU's UUID and locked with flock: the
kernel lets go of it when its holder dies, however that happens. What is in the file says who has
it and is of no account while nobody does.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelyard.gpu_holders import Holder
from modelyard.gpus import Gpu, device_indices

logger = logging.getLogger(__name__)


@dataclass
class _Held:
    file: int  # the descriptor whose lock it is
    times: int  # by how many slots of this process


class GpuLocks:
    """The locks as one process has them; slots of one worker that share a GPU share its lock."""

    def __init__(self, folder: Path, *, gpus: Sequence[Gpu], worker: str) -> None:
        self._folder = folder
        self._keys = {gpu.index: gpu.uuid or f"gpu-{gpu.index}" for gpu in gpus}
        self._worker = worker
        self._held: dict[int, _Held] = {}
        self._mutex = threading.Lock()

    def take(self, device: str, *, job_id: int) -> bool:
        """Take the locks of all of a device's GPUs, or of none where another worker has one."""
        with self._mutex:
            taken: list[int] = []
            for index in device_indices(device):
                if not self._take(index, job_id=job_id):
                    for each in taken:
                        self._give_back(each)
                    return False
                taken.append(index)
            return True

    def give_back(self, device: str) -> None:
        with self._mutex:
            for index in device_indices(device):
                self._give_back(index)

    def holder(self, index: int) -> Holder | None:
        """Return the other worker that trains on a GPU now, if one does."""
        with self._mutex:
            if index in self._held:
                return None
            try:
                descriptor = self._open(index)
            except OSError:
                return None  # said when the lock is to be taken
            try:
                # Shared, so that several who look do not see each other.
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                return None
            except BlockingIOError:
                return _holder(os.pread(descriptor, 4096, 0))
            except OSError:
                return None
            finally:
                os.close(descriptor)

    def _take(self, index: int, *, job_id: int) -> bool:
        held = self._held.get(index)
        if held is not None:
            held.times += 1
            return True
        try:
            descriptor = self._open(index)
        except OSError as error:
            # A lock that cannot be had for want of a disk must not keep a GPU idle.
            logger.error("GPU %s is used without its lock: %s", index, error)
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        except OSError as error:  # a disk that knows no locks
            os.close(descriptor)
            logger.error("GPU %s is used without its lock: %s", index, error)
            return True
        self._held[index] = _Held(descriptor, times=1)
        self._note(descriptor, job_id=job_id)
        return True

    def _note(self, descriptor: int, *, job_id: int) -> None:
        """Say in the file who has the lock, which is held whether that can be written or not."""
        note = json.dumps({"worker": self._worker, "job_id": job_id}).encode()
        try:
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, note, 0)
        except OSError as error:
            logger.warning("nobody is told who has a GPU: %s", error)

    def _give_back(self, index: int) -> None:
        held = self._held.get(index)
        if held is None:
            return
        held.times -= 1
        if held.times == 0:
            del self._held[index]
            os.close(held.file)

    def _open(self, index: int) -> int:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / f"{self._keys.get(index, f'gpu-{index}')}.lock"
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)


def _holder(note: bytes) -> Holder:
    try:
        told: Mapping[str, object] = json.loads(note)
        worker, job_id = str(told["worker"]), int(str(told["job_id"]))
    except (ValueError, KeyError, TypeError):  # it is just being written
        return Holder("is used by another worker of this host")
    return Holder(f"is training job {job_id} for worker {worker}", worker=worker, job_id=job_id)
