"""Archives of strangers: all of one is unpacked below one folder, or nothing is left."""

from __future__ import annotations

import io
import os
import random
import stat
import struct
import subprocess
import sys
import unicodedata
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.data import unpack as unpack_module
from adapters.data.archive_names import ArchiveRefused
from adapters.data.unpack import Limits, in_words, unpack
from adapters.data.unpack_apart import unpack_apart
from tests.services import wait_for

MEGABYTE = 1024 * 1024
LIMITS = Limits(total_bytes=200 * MEGABYTE, ratio=100, files=1000)
Entries = list[tuple[str | zipfile.ZipInfo, bytes]]


def archive(folder: Path, entries: Entries, *, compress: int = zipfile.ZIP_DEFLATED) -> Path:
    """Return a zip with these entries, whatever they are called."""
    path = folder / "archive.zip"
    with zipfile.ZipFile(path, "w", compress) as file:
        for name, content in entries:
            file.writestr(name, content)
    return path


def entry(name: str, *, mode: int = 0, flags: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo("x")
    info.filename = name  # ZipInfo would cut it at a NUL
    info.external_attr = mode << 16
    info.flag_bits = flags
    return info


def files_below(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_an_archive_is_unpacked_with_its_folders(tmp_path: Path) -> None:
    made = archive(tmp_path, [("train/cat/1.png", b"1"), ("train/dog/", b""), ("val/a b.png", b"")])
    found = unpack(made, tmp_path / "in", limits=LIMITS)
    assert found == tmp_path / "in"
    assert files_below(found) == {"train/cat/1.png": b"1", "val/a b.png": b""}
    assert (found / "train" / "dog").is_dir()


def test_a_folder_around_everything_is_not_in_the_way(tmp_path: Path) -> None:
    litter: Entries = [("__MACOSX/digits/._1.png", b"x"), ("digits/.DS_Store", b"x")]
    made = archive(tmp_path, [("digits/train/1.png", b"1"), *litter])
    found = unpack(made, tmp_path / "in", limits=LIMITS)
    assert found == tmp_path / "in" / "digits"
    assert files_below(tmp_path / "in") == {"digits/train/1.png": b"1"}


def test_notes_beside_the_folder_and_a_second_one_around_it_are_not_in_the_way(
    tmp_path: Path,
) -> None:
    notes: Entries = [("readme.txt", b"x"), ("LICENSE", b"x"), ("._pets", b"x")]
    made = archive(tmp_path, [("pets/all/cat/1.png", b"1"), ("pets/all/dog/1.png", b"2"), *notes])
    found = unpack(made, tmp_path / "in", limits=LIMITS)
    assert found == tmp_path / "in" / "pets" / "all"


@pytest.mark.parametrize("beside", ["data.yaml", "labels.csv", "other/1.png"])
def test_a_folder_beside_what_means_something_is_no_wrapping(tmp_path: Path, beside: str) -> None:
    made = archive(tmp_path, [("pets/cat/1.png", b"1"), (beside, b"x")])
    assert unpack(made, tmp_path / "in", limits=LIMITS) == tmp_path / "in"


def test_a_folder_of_images_is_a_class_and_no_wrapping_inside_another(tmp_path: Path) -> None:
    made = archive(tmp_path, [("pets/cat/1.png", b"1")])
    assert unpack(made, tmp_path / "in", limits=LIMITS) == tmp_path / "in" / "pets"


def test_a_split_by_itself_is_no_wrapping(tmp_path: Path) -> None:
    made = archive(tmp_path, [("train/cat/1.png", b"1")])
    assert unpack(made, tmp_path / "in", limits=LIMITS) == tmp_path / "in"


def test_names_of_any_language_keep_their_letters(tmp_path: Path) -> None:
    names = ["고양이/사진 1.png", "😀/é.png", "한/강.png"]
    made = archive(tmp_path, [(name, b"1") for name in names])
    assert set(files_below(unpack(made, tmp_path / "in", limits=LIMITS))) == set(names)


def test_utf8_that_does_not_say_so_is_read_as_such(tmp_path: Path) -> None:
    made = archive(tmp_path, [("고양이/1.png", b"1"), ("b.png", b"2")])
    content = bytearray(made.read_bytes())
    for signature, at in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # the flag that says UTF-8
        place = content.index(signature) + at
        content[place : place + 2] = b"\0\0"
    made.write_bytes(content)
    assert "고양이/1.png" in files_below(unpack(made, tmp_path / "in", limits=LIMITS))


@pytest.mark.parametrize(
    ("name", "coding", "read"),
    [
        ("고양이", "cp949", "고양이"),  # what a Korean Windows writes
        ("für é", "cp437", "für é"),
        ("été ñó", "cp437", "été ñó"),
    ],
)
def test_a_name_in_the_code_page_of_its_system_is_read(
    tmp_path: Path, name: str, coding: str, read: str
) -> None:
    raw = name.encode(coding)
    made = archive(tmp_path, [("x" * len(raw) + "/1.png", b"1"), ("b.png", b"2")])
    made.write_bytes(made.read_bytes().replace(b"x" * len(raw), raw))
    assert f"{read}/1.png" in files_below(unpack(made, tmp_path / "in", limits=LIMITS))


def test_no_permission_is_taken_over(tmp_path: Path) -> None:
    made = archive(tmp_path, [(entry("a/run.sh", mode=stat.S_IFREG | 0o6777), b"1")])
    unpack(made, tmp_path / "in", limits=LIMITS)
    mode = (tmp_path / "in" / "a" / "run.sh").stat().st_mode
    assert not mode & (stat.S_ISUID | stat.S_ISGID | stat.S_IXUSR)


KOREAN = unicodedata.normalize("NFC", "강")
REFUSED: dict[str, tuple[Entries, str]] = {
    "absolute": ([("/etc/cron.d/x", b"")], "absolute"),
    "drive": ([("C:/x", b"")], "absolute"),
    "drive without a slash": ([("c:x", b"")], "absolute"),
    "share": ([("//host/x", b"")], "absolute"),
    "backslash": ([("..\\x", b"")], "backslash"),
    "upwards": ([("../x", b"")], "'..'"),
    "upwards inside": ([("a/../../x", b"")], "'..'"),
    "upwards as a folder": ([("a/..", b"")], "'..'"),
    "link": ([(entry("a", mode=stat.S_IFLNK | 0o777), b"/etc/passwd")], "link"),
    "pipe": ([(entry("a", mode=stat.S_IFIFO | 0o644), b"")], "neither a file nor a folder"),
    "device": ([(entry("a", mode=stat.S_IFBLK | 0o644), b"")], "neither a file nor a folder"),
    "socket": ([(entry("a", mode=stat.S_IFSOCK | 0o644), b"")], "neither a file nor a folder"),
    "line break": ([("a\nb", b"")], "control characters"),
    "only case": ([("a/1.png", b""), ("a/1.PNG", b"")], "differ only by case"),
    "only case of a folder": ([("Cat/1.png", b""), ("cat/2.png", b"")], "differ only by case"),
    "a folder and a file by case": ([("cat/1.png", b""), ("Cat", b"")], "differ only by case"),
    "a file and a folder by case": ([("Cat", b""), ("cat/1.png", b"")], "differ only by case"),
    "only composition": (
        [(f"{KOREAN}.png", b""), (unicodedata.normalize("NFD", KOREAN) + ".png", b"")],
        "composed",
    ),
    "case of another alphabet": ([("straße", b""), ("STRASSE", b"")], "differ only by case"),
    "twice": ([("a/1.png", b"1"), ("a/1.png", b"2")], "twice"),
    "twice by a detour": ([("a/1.png", b"1"), ("a/./1.png", b"2")], "twice"),
    "twice and short": ([("a", b"1"), ("a", b"2")], "twice"),
    "file and folder": ([("a", b"1"), ("a/b", b"2")], "a file and a folder"),
    "folder and file": ([("a/b", b"2"), ("a", b"1")], "a file and a folder"),
    "deep": ([("/".join("abcdefghijklmnopqrstuvwxy"), b"")], "folders deep"),
    "long name": ([("강" * 86, b"")], "more than 255 bytes"),
    "long path": ([("/".join(["a" * 250] * 4), b"")], "more than 1000 bytes"),
    "nothing": ([], "no file"),
    "only folders": ([("a/", b"")], "no file"),
    "only litter": ([("__MACOSX/a", b"")], "no file"),
    "many": ([(f"{i}.txt", b"") for i in range(1001)], "at most 1,000"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(("entries", "says"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_leaves_nothing_behind(tmp_path: Path, entries: Entries, says: str) -> None:
    made = archive(tmp_path, entries)
    with pytest.raises(ArchiveRefused, match=says):
        unpack(made, tmp_path / "in", limits=LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def patched(content: bytes, *, local: int, central: int, value: bytes) -> bytes:
    """Return a zip of one entry with a field of both its headers replaced."""
    changed = bytearray(content)
    for signature, at in ((b"PK\3\4", local), (b"PK\1\2", central)):
        place = content.index(signature) + at
        changed[place : place + len(value)] = value
    return bytes(changed)


CONTENT = b"0123456789" * 30
TORN = len(zlib.compress(CONTENT, wbits=-15))

BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "no zip": (lambda content: b"no archive at all", "not a zip"),
    "empty": (lambda content: b"", "not a zip"),
    "cut off": (lambda content: content[:-30], "not a zip"),
    "encrypted": (lambda c: patched(c, local=6, central=8, value=b"\1\0"), "encrypted"),
    "lzma": (lambda c: patched(c, local=8, central=10, value=b"\x0e\0"), "another method"),
    "a nul in the name": (lambda c: c.replace(b"a/1.png", b"a/1\0png"), "control characters"),
    "wrong sum": (lambda c: patched(c, local=14, central=16, value=b"\1\2\3\4"), "unpacked"),
    "torn": (lambda c: c.replace(zlib.compress(CONTENT, wbits=-15), b"\xff" * TORN), "unpacked"),
    "less than it has": (lambda c: patched(c, local=22, central=24, value=b"\5\0\0\0"), "unpacked"),
    "two names": (lambda c: c.replace(b"a/1.png", b"a/2.png", 1), "unpacked"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "says"), BROKEN.values(), ids=BROKEN)
def test_what_is_broken_leaves_nothing_behind(
    tmp_path: Path, change: Callable[[bytes], bytes], says: str
) -> None:
    made = archive(tmp_path, [("a/1.png", CONTENT)])
    content = made.read_bytes()
    made.write_bytes(change(content))
    assert made.read_bytes() != content
    with pytest.raises(ArchiveRefused, match=says):
        unpack(made, tmp_path / "in", limits=LIMITS)
    assert [path.name for path in tmp_path.iterdir()] == ["archive.zip"]


def zeros(size: int) -> bytes:
    return b"\0" * size


def test_a_bomb_by_ratio_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpack_module, "_RATIO_FROM_BYTES", MEGABYTE)
    made = archive(tmp_path, [("a.bmp", zeros(20 * MEGABYTE))])
    assert made.stat().st_size * LIMITS.ratio < 20 * MEGABYTE
    with pytest.raises(ArchiveRefused, match="times its own size"):
        unpack(made, tmp_path / "in", limits=LIMITS)
    assert not (tmp_path / "in").exists()


def test_a_bomb_by_its_total_is_refused(tmp_path: Path) -> None:
    made = archive(tmp_path, [(f"{i}.bmp", zeros(6 * MEGABYTE)) for i in range(4)])
    limits = Limits(total_bytes=20 * MEGABYTE, ratio=1e9, files=10)
    with pytest.raises(ArchiveRefused, match="more than 21 MB"):
        unpack(made, tmp_path / "in", limits=limits)
    assert not (tmp_path / "in").exists()


def test_many_entries_of_the_same_bytes_are_refused(tmp_path: Path) -> None:
    """The bomb of overlapping files: a directory that names the same compressed bytes again."""
    made = archive(tmp_path, [("0.bmp", zeros(MEGABYTE))])
    content = made.read_bytes()
    directory, end = content.index(b"PK\1\2"), content.index(b"PK\5\6")
    local, one = content[:directory], content[directory:end]
    many = one * 300
    tail = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 300, 300, len(many), len(local), 0)
    made.write_bytes(local + many + tail)
    with pytest.raises(ArchiveRefused, match="twice"):
        unpack(made, tmp_path / "in", limits=LIMITS)
    assert not (tmp_path / "in").exists()


def test_what_headers_hide_is_counted_while_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sizes are believed of no header: here they are taken for small whatever they say."""
    made = archive(tmp_path, [("a.bmp", zeros(6 * MEGABYTE))])
    checks: list[int] = []
    real = unpack_module._Unpacking._check_size

    def blind_to_headers(self: unpack_module._Unpacking, size: int) -> None:
        checks.append(size)
        if len(checks) > 1:
            real(self, size)

    monkeypatch.setattr(unpack_module._Unpacking, "_check_size", blind_to_headers)
    limits = Limits(total_bytes=2 * MEGABYTE, ratio=1e9, files=10)
    with pytest.raises(ArchiveRefused, match="more than"):
        unpack(made, tmp_path / "in", limits=limits)
    assert max(checks[1:]) < 4 * MEGABYTE  # it stopped there
    assert not (tmp_path / "in").exists()


def test_a_full_disk_is_known_before(tmp_path: Path) -> None:
    made = archive(tmp_path, [("a.bmp", b"1")])
    limits = Limits(total_bytes=MEGABYTE, ratio=100, files=10, keep_free_bytes=1 << 60)
    with pytest.raises(ArchiveRefused, match="no room"):
        unpack(made, tmp_path / "in", limits=limits)
    assert not (tmp_path / "in").exists()


def test_a_child_unpacks_and_tells_how_far_it_is(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(4 * MEGABYTE)
    made = archive(tmp_path, [("a.bin", content)], compress=zipfile.ZIP_STORED)
    told: list[tuple[int, int]] = []
    found = unpack_apart(
        made,
        tmp_path / "in",
        limits=LIMITS,
        progress=lambda done, total: told.append((done, total)),
    )
    assert files_below(found) == {"a.bin": content}
    assert told
    assert all(0 < done <= total == len(content) for done, total in told)


def test_a_child_refuses_as_the_function_does(tmp_path: Path) -> None:
    made = archive(tmp_path, [("../x", b"1")])
    with pytest.raises(ArchiveRefused, match=r"'\.\.'"):
        unpack_apart(made, tmp_path / "in", limits=LIMITS)
    assert not (tmp_path / "in").exists()


def test_whoever_is_told_may_end_it(tmp_path: Path) -> None:
    class Enough(Exception):
        pass

    def enough(done: int, total: int) -> None:
        raise Enough

    made = archive(tmp_path, [(f"{i}.txt", b"1") for i in range(900)])
    with pytest.raises(Enough):
        unpack_apart(made, tmp_path / "in", limits=LIMITS, progress=enough)


def test_a_child_that_hangs_is_given_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "archive.zip")
    with pytest.raises(Exception, match="given up"):
        unpack_apart(tmp_path / "archive.zip", tmp_path / "in", limits=LIMITS, timeout_seconds=1)


def test_sizes_read_well() -> None:
    sizes = [0, 999, 1000, 1_530_000, 2_000_000_000, 5 * 10**12]
    words = ["0 bytes", "999 bytes", "1 kB", "1.53 MB", "2 GB", "5 TB"]
    assert [in_words(size) for size in sizes] == words


NAMES = st.one_of(
    st.sampled_from(["a", "A", "é", "e\u0301", "..", ".", "", "C:", "강", "__MACOSX", "x/y", "\\"]),
    st.text(max_size=6),
)
PATHS = st.lists(NAMES, min_size=1, max_size=4).map("/".join)
ENTRIES = st.lists(
    st.tuples(PATHS, st.binary(max_size=20), st.sampled_from([0, 0o120777, 0o100644, 0o040755])),
    max_size=6,
)


@pytest.mark.filterwarnings("ignore:Duplicate name")
@settings(
    deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(entries=ENTRIES, flips=st.lists(st.tuples(st.integers(0), st.integers(1, 255)), max_size=3))
def test_whatever_an_archive_holds_it_is_refused_or_lies_in_its_folder(
    tmp_path_factory: pytest.TempPathFactory,
    entries: list[tuple[str, bytes, int]],
    flips: list[tuple[int, int]],
) -> None:
    folder = tmp_path_factory.mktemp("any")
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as file:
        for name, content, mode in entries:
            try:
                file.writestr(entry(name, mode=mode), content)
            except UnicodeEncodeError:  # half of a surrogate pair cannot be written
                continue
    written = bytearray(made.getvalue())
    for place, change in flips:
        written[place % len(written)] ^= change
    (folder / "archive.zip").write_bytes(written)
    try:
        found = unpack(folder / "archive.zip", folder / "in", limits=LIMITS)
    except ArchiveRefused:
        assert [path.name for path in folder.iterdir()] == ["archive.zip"]
        return
    assert found.is_relative_to(folder / "in")
    assert sorted(path.name for path in folder.iterdir()) == ["archive.zip", "in"]
    for path in (folder / "in").rglob("*"):
        assert not path.is_symlink()
        assert path.is_file() or path.is_dir()


def test_a_child_ends_with_the_process_that_asked(tmp_path: Path) -> None:
    """A web process that is killed leaves a child that notices, ends, and takes its files along."""
    content = random.Random(0).randbytes(60 * MEGABYTE)
    archive(tmp_path, [(f"{i}.bin", content) for i in range(3)], compress=zipfile.ZIP_STORED)
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "from adapters.data.unpack import Limits\n"
        "from adapters.data.unpack_apart import unpack_apart\n"
        "folder = Path(sys.argv[1])\n"
        "unpack_apart(folder / 'archive.zip', folder / 'in', limits=Limits(10**9, 100, 10),\n"
        "    progress=lambda done, total: os.kill(os.getpid(), signal.SIGKILL))\n"
    )
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    wait_for(lambda: not (tmp_path / "in").exists(), what="the end of the orphaned child")
