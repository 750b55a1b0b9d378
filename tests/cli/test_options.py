"""Each option is the same in Python, on the command line, on record and in printed commands."""

from __future__ import annotations

import json
import shlex
from dataclasses import fields
from pathlib import Path

import pytest

import dreamquant
from dreamquant.cli import main as cli
from dreamquant.errors import DreamQuantError, SchemeError, TrainingError
from dreamquant.jobs import distill as distill_job
from dreamquant.jobs import dream as dream_job
from dreamquant.jobs import quantize as quantize_job
from dreamquant.jobs.request import DistillRequest, DreamRequest, QuantizeRequest, asked
from dreamquant.methods import METHODS
from dreamquant.networks import demo
from dreamquant.networks.load import load_network
from dreamquant.quantization.scheme import Bits
from dreamquant.report.wording import command

REQUESTS = {"quantize": QuantizeRequest, "distill": DistillRequest, "dream": DreamRequest}
# A value of each option that is not its default, as Python takes it.
OTHER = {
    "bits": "w3a5",
    "method": "gdfq",
    "scheme": "paper",
    "placement": "layer-input",
    "first_last": 8,
    "override": ("3.*=w8a8", "4.*=w2a2"),
    "elementwise": 8,
    "weights_range": "full",
    "softmax": "log2",
    "ranges": "learned",
    "gradient": "clipped",
    "batch_norm": "re-estimated",
    "preset": "paper",
    "images": "some where/pool",
    "select": 0.5,
    "count": 40,
    "diagnostics": True,
    "iterations": 4,
    "budget": "5min",
    "seed": 3,
    "data": "some where/images.npz",
    "device": "cpu",
    "precision": "bf16",
    "compile": True,
    "threads": 1,
    "micro_batches": 2,
    "resume": True,
    "quiet": True,
    "verbose": True,
    "inherit": True,
    "size": "1.2MB",
    "max_drop": "2",
}
GOALS = {"size", "max_drop"}  # of --bits auto alone
SAYS_NOTHING = {"resume", "quiet", "verbose", "threads"}  # of the result


def names(kind):
    return [each.name for each in fields(kind)]


def given(name):
    """An option with its other value, and what it cannot do without."""
    return {name: OTHER[name], **({"bits": "auto"} if name in GOALS else {})}


def every_option():
    return [(command, name) for command, kind in REQUESTS.items() for name in names(kind)]


@pytest.fixture
def parsed(monkeypatch):
    """What a command line asks a job for: parsed as ever, and the job is not done."""

    class Asked(Exception):  # noqa: N818 - it ends the command before its job
        pass

    def parse(*words):
        given = {}

        def job(*arguments, **options):
            given.update(options)
            raise Asked

        monkeypatch.setattr(quantize_job, "quantize", job)
        monkeypatch.setattr(distill_job, "distill", job)
        monkeypatch.setattr(dream_job, "dream", job)
        with pytest.raises(Asked):
            cli.main(list(words))
        del given["out"]
        given.pop("rehearse_export", None)  # of --export, which is no option of a request
        return asked(REQUESTS[words[0]], given)

    return parse


def as_words(name, value):
    option = f"--{name.replace('_', '-')}"
    if value is True:
        return [option]
    values = value if isinstance(value, tuple) else (value,)
    return [word for each in values for word in (option, str(each))]


DIGITS = (
    *(f"{demo.NETWORK}:digits", "--weights", str(demo.WEIGHTS), "--input", "1x8x8"),
    *("--mean", "0.3054", "--std", "0.3758", "--out", "out"),
)
NETWORK = {
    "quantize": DIGITS,
    "distill": (*DIGITS, "--student", f"{demo.NETWORK}:digits"),
    "dream": DIGITS,
}


# ------------------------------------------------------------- one option, three places


def test_each_option_is_tried_here():
    assert {name for _, name in every_option()} == set(OTHER)


@pytest.mark.parametrize("which", REQUESTS)
def test_every_option_is_in_the_help_with_its_meaning(which, capsys):
    with pytest.raises(SystemExit):
        cli.main([which, "--help"])
    text = " ".join(capsys.readouterr().out.split())
    for each in fields(REQUESTS[which]):
        assert f"--{each.name.replace('_', '-')} " in text
        first_words = " ".join(each.metadata["option"].meaning.split()[:3])
        assert first_words in text, each.name


@pytest.mark.parametrize(("which", "name"), every_option())
def test_the_command_line_gives_what_python_gives(parsed, which, name):
    options = [word for each, value in given(name).items() for word in as_words(each, value)]
    words = parsed(which, *NETWORK[which], *options)
    assert words == asked(REQUESTS[which], given(name))
    assert getattr(words, name) == OTHER[name]
    assert words != REQUESTS[which]()


@pytest.mark.parametrize(("which", "name"), every_option())
def test_what_matters_for_a_result_is_on_record(which, name):
    record = asked(REQUESTS[which], given(name)).record()
    if name in SAYS_NOTHING:
        assert name not in record
    else:
        value = OTHER[name]
        assert record[name] == (list(value) if isinstance(value, tuple) else value)
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize("which", REQUESTS)
def test_defaults_need_no_record_but_those_one_asks_for_first(which):
    assert set(REQUESTS[which]().record()) <= {"bits", "method", "seed"}


# --------------------------------------------------------------------------- old names


@pytest.mark.parametrize(
    ("old", "value", "new", "wanted"),
    [
        ("compiled", True, "compile", True),
        ("accumulate", 4, "micro_batches", 4),
        ("joins", 8, "elementwise", 8),
        ("norms", "kept", "batch_norm", "kept"),
        ("norms", "matched", "batch_norm", "re-estimated"),
        ("overrides", (("a*", "w8a8"),), "override", ("a*=w8a8",)),
        ("overrides", ["a*=w8a8"], "override", ("a*=w8a8",)),
    ],
)
def test_names_of_earlier_versions_are_taken_in_python(old, value, new, wanted):
    assert getattr(asked(QuantizeRequest, {old: value}), new) == wanted


@pytest.mark.parametrize(
    ("old", "value", "name"),
    [
        ("--accumulate", "2", "micro_batches"),
        ("--joins", "8", "elementwise"),
        ("--norms", "re-estimated", "batch_norm"),
    ],
)
def test_they_are_taken_on_the_command_line(parsed, old, value, name):
    found = getattr(parsed("quantize", *DIGITS, old, value), name)
    assert str(found) == value


def test_the_former_name_of_a_task_is_taken_on_the_command_line(monkeypatch):
    class Asked(Exception):  # noqa: N818 - it ends the command before its job
        pass

    def job(network, *_, **__):
        raise Asked(network.input.task)

    monkeypatch.setattr(quantize_job, "quantize", job)
    with pytest.raises(Asked, match="regression"):
        cli.main(["quantize", *DIGITS, "--task", "tensors"])


# ------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("typed", "meant"), [("bit", "bits"), ("elemntwise", "elementwise"), ("seeds", "seed")]
)
def test_an_unknown_option_names_the_nearest(typed, meant):
    with pytest.raises(DreamQuantError) as e:
        dreamquant.quantize(demo.teacher(), **{typed: 1})
    assert e.value.what == f"there is no option {typed!r}"
    assert e.value.remedy == f"did you mean {meant!r}?"


def test_an_option_of_another_job_is_unknown():
    with pytest.raises(DreamQuantError, match="there is no option 'inherit'"):
        asked(QuantizeRequest, {"inherit": True})


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"iterations": 0}, "--iterations"),
        ({"iterations": 4, "budget": "5min"}, "--iterations, --budget"),
        ({"seed": -1}, "--seed"),
        ({"seed": 2**32}, "--seed"),
    ],
)
def test_what_no_run_can_have_is_refused_before_anything_is_opened(options, where):
    with pytest.raises(TrainingError) as e:
        asked(QuantizeRequest, options)
    assert e.value.where == where


def test_overrides_are_bits_of_patterns():
    request = asked(QuantizeRequest, {"override": ["a*=w8a8", "b=w2a3"]})
    assert request.overrides == (("a*", Bits(8, 8)), ("b", Bits(2, 3)))
    with pytest.raises(SchemeError, match="does not name bits"):
        _ = asked(QuantizeRequest, {"override": ["a*"]}).overrides


# --------------------------------------------------------------------- the command printed


def manifest(which, request):
    """What a run asked for so has on record, as far as the command needs it."""
    network = {
        "name": f"{demo.NETWORK}:digits",
        "weights": str(demo.WEIGHTS),
        "input": {"shape": [1, 8, 8], "mean": [0.3054], "std": [0.3758], "num_classes": 10},
        "input_source": "options",
    }
    record = {"command": which, **request.record()}
    made = {"network": network, "request": record, "method": {"name": "m", "iterations": 7}}
    return made if which == "quantize" else made | {"teacher": network}


@pytest.mark.parametrize(("which", "name"), every_option())
def test_the_command_printed_asks_for_the_same_again(parsed, which, name):
    request = asked(REQUESTS[which], given(name))
    words = shlex.split(command(manifest(which, request)).replace("\\\n", " "))
    again = parsed(*words[1:])
    # The length is that of the run, however it was asked for.
    assert again.iterations == 7
    for each in names(REQUESTS[which]):
        if each not in {"iterations", "budget"} | SAYS_NOTHING:
            assert getattr(again, each) == getattr(request, each), each


def test_a_path_is_asked_for_again_as_a_text(parsed):
    request = asked(QuantizeRequest, {"data": Path("some where/images.npz")})
    words = shlex.split(command(manifest("quantize", request)).replace("\\\n", " "))
    assert parsed(*words[1:]).data == "some where/images.npz"


def test_a_method_in_memory_has_no_name_to_be_asked_for_by():
    from dataclasses import replace

    own = replace(METHODS["gdfq"], name="mine")
    assert asked(QuantizeRequest, {"method": own}).record()["method"] is None
    assert asked(QuantizeRequest, {"method": METHODS["gdfq"]}).record()["method"] == "gdfq"


def test_a_real_manifest_holds_the_request(tmp_path):
    network = load_network(
        f"{demo.NETWORK}:digits",
        weights=demo.WEIGHTS,
        shape=demo.INPUT.shape,
        mean=demo.INPUT.mean,
        std=demo.INPUT.std,
    )
    options = {"first_last": 8, "override": ("3.*=w2a2",), "micro_batches": 2, "seed": 5}
    result = dreamquant.quantize(
        *(network, "w3a3", "adadfq"),
        **{"iterations": 2, "device": "cpu", "quiet": True, "out": tmp_path / "out"},
        **options,
    )
    assert result.manifest["request"] == {
        "command": "quantize",
        "bits": "w3a3",
        "method": "adadfq",
        "iterations": 2,
        "device": "cpu",
        "precision": "32",  # that auto took
        **options,
        "override": ["3.*=w2a2"],
    }
