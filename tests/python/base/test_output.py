"""Files that commands write: checked before the work, whole or not at all after it."""

import os
import re
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dhp._core import InputError
from dhp.base.output import check_writable, complain, open_append, write_atomically


def test_a_check_makes_folders_and_leaves_files_alone(tmp_path: Path) -> None:
    new, old = tmp_path / "new" / "a.json", tmp_path / "old.json"
    old.write_text("old")
    for file in (new, old):
        check_writable("-o", str(file))
    assert old.read_text() == "old"
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["new", "old.json"]


@pytest.mark.parametrize("write", [check_writable, lambda option, file: write_atomically(option, file, "text")])
def test_what_cannot_be_written_is_named(tmp_path: Path, write) -> None:
    with pytest.raises(InputError) as error:
        write("-o", str(tmp_path))
    assert str(error.value) == f"-o: {tmp_path} cannot be written (Is a directory); give another path"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"--result: .*/file/a\.json cannot be written"):
        write("--result", str(tmp_path / "file" / "a.json"))


def test_a_file_is_replaced_when_it_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.json"
    write_atomically("-o", str(file), "first")
    assert file.read_text() == "first"

    def full(handle: int) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="No space left on device"):
        write_atomically("-o", str(file), "second")
    assert file.read_text() == "first"
    assert os.listdir(tmp_path) == ["a.json"]


def test_links_stay_and_pipes_are_written_to(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    link, target = tmp_path / "link.json", tmp_path / "elsewhere" / "a.json"
    link.symlink_to(target)
    check_writable("-o", str(link))
    write_atomically("-o", str(link), "text")
    assert link.is_symlink()
    assert target.read_text() == "text"
    assert os.listdir(target.parent) == ["a.json"]

    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    check_writable("-o", str(pipe))  # does not wait for a reader
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    write_atomically("-o", str(pipe), "text")
    reader.join()
    assert read == ["text"]
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.fixture
def everybodys(tmp_path: Path) -> Path:
    """A folder of somebody else's, as /tmp is root's, in which a third user has laid links to a file of ours."""
    if os.geteuid() != 0:
        pytest.skip("only root can make files of other users")
    (tmp_path / "ours").write_text("ours")
    folder = tmp_path / "tmp"
    folder.mkdir()
    folder.chmod(0o1777)
    os.chown(folder, 1001, 1001)
    for name, owner in (("theirs", 1002), ("folders", 1001), ("own", 0)):
        (folder / name).symlink_to(tmp_path / "ours")
        os.chown(folder / name, owner, owner, follow_symlinks=False)
    (folder / "way").symlink_to(tmp_path)
    os.chown(folder / "way", 1002, 1002, follow_symlinks=False)
    (tmp_path / "detour").symlink_to(folder / "way" / "new")  # ours, over a link of theirs
    (tmp_path / "up").symlink_to("tmp/../tmp/theirs")
    return folder


def test_links_of_others_are_not_followed(everybodys: Path) -> None:
    uses = [check_writable, open_append, lambda option, file: write_atomically(option, file, "text")]
    for name in ("theirs", "way/new", "../detour", "../up"):
        for use in uses:
            with pytest.raises(
                InputError, match=r"-o: .* cannot be written \(.* is a link that another user has made\)"
            ):
                use("-o", str(everybodys / name))
    assert (everybodys.parent / "ours").read_text() == "ours"
    assert sorted(path.name for path in everybodys.parent.iterdir()) == ["detour", "ours", "tmp", "up"]
    for name in ("folders", "own"):
        check_writable("-o", str(everybodys / name))
    write_atomically("-o", str(everybodys / "own"), "text")
    assert (everybodys.parent / "ours").read_text() == "text"


def test_partial_files_are_new_under_names_that_nobody_foresees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []
    real = os.open

    def spy(path: Path, flags: int, mode: int = 0o777) -> int:
        opened.append((Path(path).name, flags))
        return real(path, flags, mode)

    monkeypatch.setattr(os, "open", spy)
    for _ in range(2):
        write_atomically("-o", str(tmp_path / "a.json"), ["in ", "pieces"])
    assert (tmp_path / "a.json").read_text() == "in pieces"
    names = [name for name, _ in opened]
    assert len(set(names)) == 2
    assert all(re.fullmatch(r"\.dhp-[0-9a-f]{16}", name) for name in names)
    assert all(flags & os.O_EXCL and flags & os.O_NOFOLLOW for _, flags in opened)


def test_files_to_add_to_are_checked_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "new" / "m.jsonl"
    check_writable("--metrics", str(file), append=True)
    assert not file.exists()
    for line in ("first\n", "second\n"):
        with open_append("--metrics", str(file)) as stream:
            stream.write(line)
        check_writable("--metrics", str(file), append=True)
    assert file.read_text() == "first\nsecond\n"
    for wrong in (tmp_path, file / "below"):
        for use in (open_append, check_writable):
            with pytest.raises(InputError, match=r"--metrics: .* cannot be written \((Is a d|Not a d|File exists)"):
                use("--metrics", str(wrong))


@pytest.mark.parametrize("append", [False, True])
def test_links_that_lead_to_themselves_are_refused_before_the_work(tmp_path: Path, append: bool) -> None:
    (tmp_path / "one").symlink_to("two")
    (tmp_path / "two").symlink_to("one")
    (tmp_path / "to come").symlink_to("other")
    with pytest.raises(InputError, match=r"-o: .* cannot be written \(Too many levels of symbolic links\)"):
        check_writable("-o", str(tmp_path / "one"), append=append)
    check_writable("-o", str(tmp_path / "to come"), append=append)
    assert len(list(tmp_path.iterdir())) == 3


def test_odd_names_are_refused(tmp_path: Path) -> None:
    write_atomically("-o", str(tmp_path / ("a" * 250)), "a name as long as names may be")
    for name, why in (("a" * 300, "File name too long"), ("a\0b", "embedded null")):
        with pytest.raises(InputError, match=why):
            check_writable("-o", str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("a\r\x9b2J\x7f", "a\\r\\x9b2J\\x7f"),
        ("\u202egnp.exe\ud800", "\\u202egnp.exe\\ud800"),
        ("sägé 図 🙂\ttab\nnext", "sägé 図 🙂\ttab\nnext"),
    ],
)
def test_names_do_not_steer_the_terminal(text: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    complain(text)
    assert capsys.readouterr().err == shown + "\n"


def test_the_middle_of_a_line_too_long_to_read_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    complain(f"dhp: error: {'x' * 4000}: cannot be read\n{'y' * 1000}")
    first, second, end = capsys.readouterr().err.split("\n")
    assert re.fullmatch(r"dhp: error: x{588} … 3,128 characters left out … x{284}: cannot be read", first)
    assert (second, end) == ("y" * 1000, "")


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_complaint_is_written_in_one_piece(unbuffered: str) -> None:
    """A pipe of messages: it keeps the pieces apart. Ranks share one standard error."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    code = "from dhp.base.output import complain; complain('dhp: sample 3: x'); complain('two\\nlines')"
    environment = {**os.environ, "PYTHONUNBUFFERED": unbuffered}
    with ours:
        with theirs:
            subprocess.run([sys.executable, "-c", code], stderr=theirs, env=environment, check=True)
        assert [ours.recv(999) for _ in range(3)] == [b"dhp: sample 3: x\n", b"two\nlines\n", b""]


def test_a_closed_standard_error_is_no_fault() -> None:
    code = "from dhp.base.output import complain; complain('nobody reads'); print('goes on')"
    done = subprocess.run(["sh", "-c", f'exec "{sys.executable}" -c "{code}" 2>&-'], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "goes on\n")
