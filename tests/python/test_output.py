"""Files that commands write: checked before the work, whole or not at all after it."""

import os
import stat
import threading
from pathlib import Path

import pytest

from dhp._core import InputError
from dhp.output import check_writable, complain, write_atomically


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

    def full(path: Path, text: str, **_: str) -> None:
        with open(path, "w") as partial:
            partial.write(text[:2])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_text", full)
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
