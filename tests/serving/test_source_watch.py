"""Changes of watched files."""

from __future__ import annotations

from pathlib import Path

from serving.source_watch import SourceWatch


def _watch(folder: Path) -> SourceWatch:
    return SourceWatch([folder], poll_seconds=0)


def test_a_change_counts_once_it_is_over(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = 1")
    watch = _watch(tmp_path)
    first = watch.has_changed()
    (tmp_path / "a.py").write_text("x = 12")
    written = watch.has_changed()
    (tmp_path / "b.py").write_text("y = 1")
    still = watch.has_changed()

    assert (first, written, still) == (False, False, False)
    assert watch.has_changed()
    assert not watch.has_changed()
    assert watch.syntax_error() == ""


def test_a_syntax_error_has_its_place(tmp_path: Path) -> None:
    watch = _watch(tmp_path)
    (tmp_path / "a.py").write_text("x = 1\ndef f(:\n")
    watch.has_changed()

    assert watch.has_changed()
    assert watch.syntax_error().startswith("a.py:2: SyntaxError")


def test_removed_files_are_changes_and_those_of_environments_are_none(tmp_path: Path) -> None:
    for name in (".hidden", "__pycache__", "venv"):
        (tmp_path / name).mkdir()
    (tmp_path / "a.py").write_text("")
    watch = _watch(tmp_path)
    for name in (".hidden/a.py", "__pycache__/a.py", "venv/a.py", "notes.txt"):
        (tmp_path / name).write_text("x")
    ignored = [watch.has_changed(), watch.has_changed()]
    (tmp_path / "a.py").unlink()
    watch.has_changed()

    assert ignored == [False, False]
    assert watch.has_changed()
    assert watch.syntax_error() == ""
