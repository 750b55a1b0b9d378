"""Reports as files, and failures to write them."""

from __future__ import annotations

import pytest

from dreamquant.cli import main as cli
from dreamquant.errors import ResultError
from dreamquant.report import write

from .conftest import quantize


def command(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        cli.main(["report", *map(str, arguments)])
    written = capsys.readouterr()
    return stopped.value.code or 0, written.out, written.err


def test_the_command_writes_where_it_says(copied, unlabelled, tmp_path, capsys):
    (copied / "report.html").unlink()
    assert command(capsys, copied) == (0, f"{copied / 'report.html'}\n", "")
    assert (copied / "report.html").read_text().startswith("<!doctype html>")
    assert command(capsys, copied, unlabelled) == (0, f"{copied / 'comparison.html'}\n", "")
    page = tmp_path / "page.html"
    assert command(capsys, copied, "--to", page) == (0, f"{page}\n", "")
    assert page.read_bytes() == (copied / "report.html").read_bytes()


def test_what_is_no_result_is_named(tmp_path, capsys):
    code, out, error = command(capsys, tmp_path)
    assert (code, out) == (2, "")
    assert "is not a result of dreamquant" in error


def test_a_report_that_fails_does_not_lose_the_result(tmp_path, monkeypatch):
    def broken(record):
        raise ZeroDivisionError("a fault of the report")

    monkeypatch.setattr(write, "render", broken)
    with pytest.warns(RuntimeWarning, match="the result is saved, but its report could not be"):
        quantize(tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"manifest.json", "student.safetensors", "analysis.json"} <= names
    assert not {"report.html", "checkpoint"} & names
    monkeypatch.undo()
    write.write_report([tmp_path / "out"])
    assert (tmp_path / "out" / "report.html").is_file()


def test_a_report_where_nothing_can_be_written(folder, tmp_path):
    with pytest.raises(ResultError, match="cannot write"):
        write.write_report([folder], tmp_path / "nowhere" / "report.html")


def test_the_analysis_changes_nothing_of_the_student(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "dreamquant.jobs.measurements.Measurements.analyse", lambda *_: {"answers": None}
    )
    quantize(tmp_path / "out", bits="w3a3", data=folder.parent / "labelled.npz")
    for name in ("student.safetensors", "samples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (folder / name).read_bytes()
