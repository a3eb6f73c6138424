"""GPUs as nvidia-smi shows them, shared out to slots. What answers here is a script of its name."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modelyard import gpus
from modelyard.checks.frameworks import _slots
from modelyard.gpus import Gpu, GpuWatch, choose_devices, device_indices, list_gpus
from modelyard.settings import load_settings
from tests.services import wait_for
from workers.devices import device_title
from workers.load import LoadMeter
from workers.template import Template

Fake = Callable[[str], Path]

FOUR = "\n".join(f"{i}, NVIDIA A100, 81920, {1000 * i}, {10 * i}, GPU-{i}" for i in range(4))


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Put an nvidia-smi on the path that prints a text and counts its calls in a file."""

    def make(answer: str) -> Path:
        calls = tmp_path / "calls"
        script = tmp_path / "nvidia-smi"
        script.write_text(f'#!/bin/sh\necho "$@" >> {calls}\ncat <<END\n{answer}\nEND\n')
        script.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
        return calls

    return make


def test_each_gpu_is_told_with_what_it_does(nvidia_smi: Fake) -> None:
    nvidia_smi("0, NVIDIA A100, 81920, 512, 37, GPU-a\n1, Tegra, [N/A], [N/A], [N/A], GPU-b")
    assert list_gpus() == [
        Gpu(0, "NVIDIA A100", memory=81920, memory_used=512, utilisation=37, uuid="GPU-a"),
        Gpu(1, "Tegra", memory=0, memory_used=0, utilisation=None, uuid="GPU-b"),
    ]


def test_a_driver_that_fails_shows_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = tmp_path / "nvidia-smi"
    script.write_text("#!/bin/sh\nexit 9\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert list_gpus() == []
    assert choose_devices(None) == ["cpu"]


def test_a_driver_that_hangs_is_not_waited_for_and_not_asked_again_meanwhile(
    nvidia_smi: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = nvidia_smi("")
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\necho >> {calls}\nexec sleep 600\n")
    with monkeypatch.context() as wedged:
        wedged.setattr(gpus, "_NVIDIA_SMI_SECONDS", 1)
        wedged.setattr(subprocess.Popen, "kill", lambda process: None)  # it does not go
        assert list_gpus() == []
        assert list_gpus() == []
    (hanging,) = gpus._unended
    wait_for(lambda: calls.exists() and calls.read_text(), what="its call")
    assert len(calls.read_text().splitlines()) == 1
    hanging.kill()
    wait_for(lambda: hanging.poll() is not None, what="its end")
    nvidia_smi("0, NVIDIA A100, 81920, 512, 37, GPU-a")
    assert len(list_gpus()) == 1


def test_children_find_no_secrets_in_their_environment() -> None:
    told = subprocess.run(
        [sys.executable, "-c", "import os, workers.preload; print(*os.environ.values())"],
        env={
            "REDIS_URL": "redis://:hush@broker/0",
            "AWS_SECRET_ACCESS_KEY": "hush",
            "HF_HOME": "/kept",
        },
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "hush" not in told
    assert "/kept" in told


@pytest.mark.parametrize(
    ("wanted", "per_slot", "slots"),
    [
        (None, 1, ["cuda:0", "cuda:1", "cuda:2", "cuda:3"]),
        (None, 2, ["cuda:0,1", "cuda:2,3"]),
        (None, 4, ["cuda:0,1,2,3"]),
        (None, 3, ["cuda:0,1,2"]),
        ((3, 1), 2, ["cuda:3,1"]),
        ((2,), 1, ["cuda:2"]),
        ((0, 0, 1), 1, ["cuda:0", "cuda:0", "cuda:1"]),  # two slots share GPU 0
        ((), 2, ["cpu"]),
    ],
)
def test_gpus_are_shared_out_to_slots(
    nvidia_smi: Fake, wanted: tuple[int, ...] | None, per_slot: int, slots: list[str]
) -> None:
    nvidia_smi(FOUR)
    assert choose_devices(wanted, per_slot=per_slot) == slots


@pytest.mark.parametrize(
    ("visible", "slots"),
    [
        ("1,0", ["cuda:1", "cuda:0"]),
        ("GPU-2", ["cuda:2"]),
        ("", ["cpu"]),
        ("-1", ["cpu"]),
    ],
)
def test_gpus_that_are_hidden_from_cuda_are_not_used(
    nvidia_smi: Fake, monkeypatch: pytest.MonkeyPatch, visible: str, slots: list[str]
) -> None:
    nvidia_smi(FOUR)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_devices(None) == slots
    assert choose_devices((3,)) == ["cuda:3"]  # asked for by name


def test_children_count_gpus_as_nvidia_smi_does() -> None:
    told = [
        Template([]).ask(os.getenv, name, seconds=60)
        for name in ("CUDA_DEVICE_ORDER", "CUDA_VISIBLE_DEVICES")
    ]
    assert told == ["PCI_BUS_ID", None]


@pytest.mark.parametrize(
    ("wanted", "per_slot", "said"),
    [
        ((4,), 1, "GPU 4 is not on this host"),
        ((0,), 2, "a slot is to have 2 GPUs"),
        ((1, 0, 0, 1), 4, "one of them twice"),
    ],
)
def test_what_cannot_be_shared_out_is_said(
    nvidia_smi: Fake, wanted: tuple[int, ...], per_slot: int, said: str
) -> None:
    nvidia_smi(FOUR)
    with pytest.raises(ValueError, match=said):
        choose_devices(wanted, per_slot=per_slot)


def test_a_slot_of_several_gpus_is_one_slot_with_one_name(nvidia_smi: Fake) -> None:
    nvidia_smi(FOUR)
    devices = choose_devices(None, per_slot=2)
    assert devices == ["cuda:0,1", "cuda:2,3"]
    assert device_title("cuda:0,1", list_gpus()) == "cuda:0,1 2 × NVIDIA A100"
    assert device_title("cuda:2", list_gpus()) == "cuda:2 NVIDIA A100"
    assert device_indices("cuda:2,3") == (2, 3)
    assert device_indices("cpu") == device_indices("cuda") == ()


def test_the_doctor_tells_of_gpus_that_are_left_over(nvidia_smi: Fake, tmp_path: Path) -> None:
    nvidia_smi(FOUR)

    def told(per_slot: int) -> tuple[str, str]:
        environ = {"MODELYARD_HOME": str(tmp_path), "MODELYARD_GPUS_PER_SLOT": str(per_slot)}
        finding = _slots(load_settings(environ), present=[0, 1, 2, 3])
        return str(finding.level), finding.text

    assert told(2) == ("ok", "cuda:0,1; cuda:2,3")
    assert told(3) == ("warning", "cuda:0,1,2; GPUs left over: 1")
    assert told(5)[0] == "problem"


def test_nvidia_smi_is_asked_once_for_all_who_want_to_know(nvidia_smi: Fake) -> None:
    calls = nvidia_smi(FOUR)
    now = [100.0]
    watch = GpuWatch(max_age_seconds=2.5, clock=lambda: now[0])
    assert watch.gpus() == watch.gpus() == list_gpus()
    watch.view()
    asked = calls.read_text()
    assert asked.count("--query-gpu") == 2  # one by the watch, one for the comparison
    assert asked.count("--query-compute-apps") == 1
    now[0] += 3
    watch.gpus()
    watch.view()
    assert calls.read_text().count("--query-gpu") == 3
    watch.view_now()
    watch.view()
    assert calls.read_text().count("--query-gpu") == 4


def test_an_attempts_gpu_load_is_that_of_its_own_gpus(nvidia_smi: Fake) -> None:
    nvidia_smi(FOUR)
    sample = LoadMeter(os.getpid(), device="cuda:2,3", gpus=list_gpus).sample()
    assert sample is not None
    assert (sample["gpu_percent"], sample["gpu_memory_bytes"]) == (25.0, 5000 * 2**20)
    sample = LoadMeter(os.getpid(), device="cpu", gpus=list_gpus).sample()
    assert sample is not None
    assert (sample["gpu_percent"], sample["gpu_memory_bytes"]) == (None, None)
