"""Files that are written whole or not at all, and checkpoints that run no code."""

from __future__ import annotations

import errno
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

import pytest
import torch

from adapters.checkpoints import (
    load_checkpoint,
    remove_leftovers,
    save_checkpoint,
    write_atomically,
)
from adapters.contract import ErrorKind, TrainingError

FORMAT = "test-1"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "last.pth"
    save_checkpoint(path, {"weights": torch.arange(4096.0), "step": 7}, format=FORMAT)
    return path


def refused(path: Path) -> TrainingError:
    with pytest.raises(TrainingError) as caught:
        load_checkpoint(path, format=FORMAT)
    assert caught.value.kind == ErrorKind.CHECKPOINT_INVALID
    assert str(path) in caught.value.message
    return caught.value


def test_a_checkpoint_comes_back_as_it_was_saved(checkpoint: Path) -> None:
    content = load_checkpoint(checkpoint, format=FORMAT)
    assert content["step"] == 7
    assert torch.equal(content["weights"], torch.arange(4096.0))


def test_the_order_of_memory_survives(tmp_path: Path) -> None:
    weights = torch.randn(4, 3, 5, 5).contiguous(memory_format=torch.channels_last)
    save_checkpoint(tmp_path / "c.pth", {"weights": weights}, format=FORMAT)
    back = load_checkpoint(tmp_path / "c.pth", format=FORMAT)["weights"]
    assert torch.equal(back, weights)
    assert back.stride() == weights.stride()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_checkpoint_is_refused(checkpoint: Path, share: float) -> None:
    whole = checkpoint.read_bytes()
    checkpoint.write_bytes(whole[: int(len(whole) * share)])
    refused(checkpoint)


def test_a_single_wrong_bit_in_the_weights_is_noticed(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    content[len(content) // 2] ^= 1
    checkpoint.write_bytes(content)
    refused(checkpoint)


@pytest.mark.parametrize("content", [b"hello world", b"\x80\x04.", b"PK\x03\x04", b"\x00" * 4096])
def test_a_file_of_another_kind_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(content)
    refused(path)


def test_a_checkpoint_of_another_format_is_refused(checkpoint: Path) -> None:
    with pytest.raises(TrainingError, match="test-2"):
        load_checkpoint(checkpoint, format="test-2")


def test_a_state_dict_that_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(2)}, tmp_path / "foreign.pth")
    refused(tmp_path / "foreign.pth")
    torch.save(torch.zeros(2), tmp_path / "tensor.pth")
    refused(tmp_path / "tensor.pth")


class TouchesAFile:
    """Runs code when it is unpickled, as a malicious checkpoint would."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("save", [torch.save, lambda o, p: p.write_bytes(pickle.dumps(o))])
def test_code_in_a_checkpoint_is_refused_and_does_not_run(
    tmp_path: Path, save: Callable[[Any, Path], None]
) -> None:
    path, trace = tmp_path / "last.pth", tmp_path / "trace"
    save({"format": FORMAT, "weights": TouchesAFile(trace)}, path)
    refused(path)
    assert not trace.exists()


def test_a_writer_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")

    def fail(stream: BinaryIO) -> NoReturn:
        stream.write(b"half")
        # The kernel's own refusal, as on a full disk.
        with open("/dev/full", "wb", buffering=0) as full:  # noqa: PTH123
            full.write(b"x")
        raise AssertionError("the full device took a byte")

    with pytest.raises(OSError) as caught:
        write_atomically(path, fail)
    assert caught.value.errno == errno.ENOSPC
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["last.pth"]  # noqa: PTH208


def test_a_full_disk_is_told_as_the_system_tells_it() -> None:
    # What save_checkpoint relies on: given a stream, torch does not hide the system's error.
    with (
        pytest.raises(OSError) as caught,
        open("/dev/full", "wb", buffering=0) as full,  # noqa: PTH123
    ):
        torch.save({"weights": torch.zeros(100_000)}, full)
    assert caught.value.errno == errno.ENOSPC


def test_a_writer_killed_in_the_middle_leaves_the_old_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child, which kills itself

        def die(stream: BinaryIO) -> None:
            stream.write(b"half of the new one")
            stream.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        write_atomically(path, die)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    assert len(list(tmp_path.iterdir())) == 2
    remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]
