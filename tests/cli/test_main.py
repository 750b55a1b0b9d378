"""The command line, command by command: what it prints, where, how fast, and how it stops."""

from __future__ import annotations

import json
import os
import resource
import shlex
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from rich.console import Console
from safetensors.torch import load_file, save_file

import tiny
from dreamquant.cli import ending as cli_ending
from dreamquant.cli import main as cli
from dreamquant.cli import tables as printing
from dreamquant.errors import NetworkError
from dreamquant.jobs import checkpoint
from dreamquant.jobs import quantize as api
from dreamquant.methods import METHODS
from dreamquant.networks import demo, origins
from dreamquant.networks.checkpoints import load_weights
from dreamquant.networks.found import Found
from dreamquant.results import folder
from dreamquant.results.reopen import open_result
from dreamquant.synthesis.generator import Stream

NETWORK = f"{demo.NETWORK}:digits"
INPUT = ("--input", "1x8x8", "--mean", "0.3054", "--std", "0.3758")
DIGITS = (NETWORK, "--weights", str(demo.WEIGHTS), *INPUT)
SHORT = ("--bits", "w3a3", "--iterations", "4", "--device", "cpu", "--method", "adadfq")
PROGRAM = (sys.executable, "-c", "from dreamquant.cli.main import main; main()")
SUMMARY = ["out", "teacher", "ranges_only", "student", "agreement", "seconds", "iterations"]
MEASURED = ["top1", "top5", "n", "ci95", "agreement"]


@pytest.fixture
def run(capsys):
    """Run a command in this process; gives what it wrote."""

    def call(*arguments: str, code: int = 0):
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        written = capsys.readouterr()
        assert (stopped.value.code or 0) == code, written.err
        return written

    return call


@pytest.fixture
def run_json(run):
    """Run a command with ``--json``; gives the object it printed, and nothing but that."""

    def call(*arguments: str):
        out = run(*arguments, "--json").out
        assert out.count("\n") == 1
        return json.loads(out)

    return call


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[str, str]:
    """The option that names forty labelled digits."""
    file = tmp_path_factory.mktemp("data") / "few.npz"
    with np.load(demo.HELD_OUT) as held_out:
        np.savez(file, images=held_out["images"][:40], labels=held_out["labels"][:40])
    return "--data", str(file)


@pytest.fixture(scope="module")
def saved(tmp_path_factory, data) -> Path:
    """A result of the demo network, with its teacher's weights beside it."""
    folder = tmp_path_factory.mktemp("saved")
    weights = folder / "teacher.safetensors"
    shutil.copy(demo.WEIGHTS, weights)
    options = (*INPUT, *SHORT, *data, "--out", str(folder / "result"))
    with pytest.raises(SystemExit):
        cli.main(["quantize", NETWORK, "--weights", str(weights), *options])
    return folder


@pytest.fixture(scope="module")
def quick(tmp_path_factory) -> tuple[str, ...]:
    """A network that takes a fraction of the demo's time, for what does not depend on it."""
    return tuple(tiny.options(tmp_path_factory.mktemp("tiny"), 4))


@pytest.fixture
def unlabelled(tmp_path) -> str:
    """A file of three images without labels."""
    file = tmp_path / "unlabelled.npz"
    np.savez(file, images=np.load(demo.HELD_OUT)["images"][:3])
    return str(file)


@pytest.fixture
def brief_demo(monkeypatch, data):
    """Let the demo take four iterations and few images."""
    monkeypatch.setattr(demo, "HELD_OUT", Path(data[1]))
    usual = api.quantize
    monkeypatch.setattr(api, "quantize", lambda *a, **k: usual(*a, **k | {"iterations": 4}))


def interrupt_at(monkeypatch, iteration: int, number: int = signal.SIGINT) -> None:
    """Send this process a signal in the middle of an iteration."""
    usual = Stream.update

    def update(images: Stream) -> None:
        if images.done == iteration:
            os.kill(os.getpid(), number)
        usual(images)

    monkeypatch.setattr(Stream, "update", update)


# ---------------------------------------------------------------------------- distill


@pytest.fixture
def small(tmp_path) -> str:
    """A student of the digits, fit for one command."""
    file = tmp_path / "small.py"
    file.write_text(
        "from torch import nn\n"
        "def net():\n"
        "    parts = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()\n"
        "    return nn.Sequential(*parts, nn.Linear(144, 10))\n"
    )
    return f"{file}:net"


def test_distill_prints_one_object_and_evaluate_finds_the_teacher(run_json, data, small, tmp_path):
    out = str(tmp_path / "out")
    options = ("--student", small, "--iterations", "3", "--device", "cpu", "--out", out)
    summary = run_json("distill", *DIGITS, *options, *data)
    assert list(summary) == SUMMARY
    assert summary["ranges_only"]["top1"] is None
    measured = run_json("evaluate", out, *data)
    assert measured["top1"] == summary["student"]["top1"]
    assert measured["agreement"] == summary["agreement"]


def test_distill_prints_a_table_with_both_sizes(run, data, small, tmp_path):
    options = ("--student", small, "--iterations", "2", "--device", "cpu")
    printed = run("distill", *DIGITS, *options, *data, "--out", str(tmp_path / "out")).out
    assert "student, trained without data" in printed
    assert "1,498 instead of " in printed


def test_a_stopped_distillation_says_how_to_go_on(run, small, tmp_path, monkeypatch):
    interrupt_at(monkeypatch, 1)
    options = ("--student", small, "--iterations", "3", "--device", "cpu", "--bits", "w8a8")
    said = run("distill", *DIGITS, *options, "--out", str(tmp_path / "out"), code=130).err
    assert said.splitlines()[-1].startswith("resume with: dreamquant distill --resume ")


# ------------------------------------------------------------------------------ speed


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["quantize", "--help"], ["evaluate", "--help"], []]
)
def test_help_is_instant(arguments):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = (
        "import sys\n"
        "from dreamquant.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n"
        "    heavy = {'torch', 'numpy', 'PIL', 'accelerate'} & set(sys.modules)\n"
        "    assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout
    # The processor's time: that of a clock says as much about what else the machine does.
    spent = (after.ru_utime + after.ru_stime) - (before.ru_utime + before.ru_stime)
    assert spent < 0.5


def test_help_names_every_option_of_the_contract(run):
    text = run("quantize", "--help").out
    options = (
        "--weights --input --mean --std --classes --bits --method --placement --first-last "
        "--preset --budget --seed --data --iterations --device --out --diagnostics --resume --json"
    )
    assert all(f"{option} " in text for option in options.split())
    assert "--empty" not in text
    assert "--no-" not in text


# --------------------------------------------------------------------------- quantize


def test_quantize_prints_one_object_as_json(run_json, saved, tmp_path, data):
    out = tmp_path / "out"
    summary = run_json("quantize", *DIGITS, *SHORT, *data, "--out", str(out))
    assert list(summary) == SUMMARY
    assert summary["out"] == str(out)
    assert summary["iterations"] == 4
    assert summary["teacher"]["top1"] == pytest.approx(100, abs=4)
    assert 0 <= summary["ranges_only"]["top1"] <= 100
    assert 0 <= summary["student"]["top1"] <= 100
    assert 0 <= summary["agreement"] <= 100
    assert summary["seconds"] > 0
    # Equal commands give equal bytes.
    whole = saved / "result"
    for name in ("student.safetensors", "samples.png"):
        assert (out / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("with_images", [False, True])
def test_accuracies_are_null_without_labels(run_json, tmp_path, unlabelled, with_images):
    images = ("--data", unlabelled) if with_images else ()
    summary = run_json("quantize", *DIGITS, *SHORT, *images, "--out", str(tmp_path / "out"))
    assert list(summary) == SUMMARY
    assert all(summary[who] == {"top1": None} for who in ("teacher", "ranges_only", "student"))
    assert 0 <= summary["agreement"] <= 100


@pytest.mark.parametrize("width", [80, 120])
def test_what_quantize_prints_fits_the_terminal(saved, capsys, monkeypatch, tmp_path, width):
    monkeypatch.setattr(printing, "_console", Console(width=width, highlight=False))
    out = tmp_path / ("far" * 40)
    out.mkdir()
    (out / "report.html").touch()
    printing.result_table(open_result(saved / "result"), out)
    lines = capsys.readouterr().out.splitlines()
    names = ("manifest.json", "student.safetensors", "samples.png", "analysis.json")
    files = [str(out / name) for name in names]
    assert lines[-7:] == [*files, "", "report for a browser:", str(out / "report.html")]
    assert lines[0] == NETWORK
    assert lines[1].rstrip() == "at w3a3 by adadfq, preset quick"
    assert all(len(line) <= width for line in lines[1:-7])
    for label in ("full precision  ", "quantized, ranges only  ", "after recovery without data  "):
        assert sum(line.startswith(label) for line in lines) == 1
    for label in ("agreement", "protocol", "weights", "activations", "storage", "time"):
        assert any(line.startswith(label) for line in lines)


def test_progress_goes_to_standard_error_and_no_empty_table_is_printed(run, tmp_path, quick):
    written = run("quantize", *quick, "-v", "--out", str(tmp_path / "out"))
    assert "student learns: 3 steps\n" in written.err
    assert "  3 of 3: " in written.err
    assert "iterations\n" not in written.out
    assert written.out.startswith(f"{quick[0]}\nat w3a3 by adadfq, preset quick")
    assert "top-1" not in written.out
    text = " ".join(written.out.split())
    assert "of 512 probe images (dead leaves)" in text
    assert "generator warms up, 1 step in float32; student learns, 3 steps in float32" in text


def test_diagnostics_are_listed_with_the_other_files(run, tmp_path, quick):
    out = tmp_path / "out"
    text = run("quantize", *quick, "--diagnostics", "--out", str(out)).out
    files = [str(out / name) for name in ("diagnostics.json", "diagnostics.png")]
    assert [line for line in text.splitlines() if "diagnostics" in Path(line).name] == files
    assert all(Path(file).is_file() for file in files)


def test_overrides_reach_the_layers(run, tmp_path, quick):
    out = tmp_path / "out"
    overrides = ("--first-last", "8", "--override", "3=w2a2", "--override", "8*=w5a5")
    text = run("quantize", *quick, *overrides, "--out", str(out)).out
    assert "first and last layer 8; 3 w2a2; 8* w5a5" in " ".join(text.split())
    layers = json.loads((out / "manifest.json").read_text())["coverage"]["layers"]
    assert [layer["weight_bits"] for layer in layers] == [8, 2, 5]


# --------------------------------------------------------------------------- evaluate


def test_evaluate_a_result(run_json, saved, data):
    measured = run_json("evaluate", str(saved / "result"), *data)
    manifest = json.loads((saved / "result" / "manifest.json").read_text())
    assert list(measured) == [*MEASURED, "constant_agreement"]
    assert measured == manifest["accuracy"]["student"]
    assert measured["n"] == 40


def test_evaluate_on_few_images(run_json, saved, data):
    assert run_json("evaluate", str(saved / "result"), *data, "--limit", "7")["n"] == 7


def test_evaluate_a_network(run_json, data):
    measured = run_json("evaluate", *DIGITS, *data)
    assert list(measured) == MEASURED
    assert measured["top1"] == pytest.approx(100, abs=4)
    assert measured["agreement"] is None
    low, high = measured["ci95"]
    assert low < measured["top1"] <= high


def test_without_labels_agreement_alone_is_measured(run_json, saved, unlabelled):
    measured = run_json("evaluate", str(saved / "result"), "--data", unlabelled)
    assert measured["top1"] is None
    assert measured["top5"] is None
    assert 0 <= measured["agreement"] <= 100


@pytest.mark.parametrize("change", ["gone", "damaged", "others"])
def test_without_its_teacher_a_result_is_measured_all_the_same(run, saved, tmp_path, change, data):
    weights = saved / "teacher.safetensors"
    moved = tmp_path / "moved.safetensors"
    weights.rename(moved)
    try:
        if change == "damaged":
            weights.write_bytes(b"no weights")
        if change == "others":
            state = load_file(moved)
            save_file({name: tensor + 1 for name, tensor in state.items()}, weights)
        written = run("evaluate", str(saved / "result"), *data, "--json")
        assert json.loads(written.out)["agreement"] is None
        assert json.loads(written.out)["top1"] > 0
        assert "agreement is not measured" in written.err
        found = run("evaluate", str(saved / "result"), *data, "--json", "--weights", str(moved))
        assert json.loads(found.out)["agreement"] > 0
        assert found.err == ""
    finally:
        moved.replace(weights)


def test_pretrained_weights_are_fetched_again_for_agreement(
    run, run_json, tmp_path, monkeypatch, data
):
    offline = False

    def zoo(architecture: str, *, pretrained: bool, num_classes: int | None = None) -> Found:
        module = origins.find(NETWORK, pretrained=False, num_classes=None)[0].module
        if pretrained and offline:
            raise NetworkError("no connection")
        if pretrained:
            load_weights(module, demo.WEIGHTS)
        return Found(module, "a zoo", (1, 8, 8), (0.3054,), (0.3758,))

    monkeypatch.setattr(origins, "ZOOS", {"zoo": zoo})
    out = str(tmp_path / "out")
    summary = run_json("quantize", "zoo:digits", *SHORT, *data, "--out", out)
    measured = run_json("evaluate", out, *data)
    assert measured["agreement"] == summary["agreement"]
    offline = True
    written = run("evaluate", out, *data, "--json")
    assert json.loads(written.out)["top1"] == summary["student"]["top1"]
    assert json.loads(written.out)["agreement"] is None
    assert "give --weights" in written.err


def test_evaluate_prints_a_table_of_what_was_measured(run, saved, unlabelled, data):
    labelled = run("evaluate", str(saved / "result"), *data).out
    assert labelled.splitlines()[0] == str(saved / "result")
    assert [line.split()[0] for line in labelled.splitlines()[4:]] == [
        "top-1",
        "top-5",
        "agreement",
    ]
    alone = run("evaluate", str(saved / "result"), "--data", unlabelled).out
    assert [line.split()[0] for line in alone.splitlines()[4:]] == ["agreement"]


# ---------------------------------------------------------------------------- methods


def test_quiet_prints_nothing(run, tmp_path, quick):
    assert run("quantize", *quick, "--out", str(tmp_path / "out"), "--quiet") == ("", "")
    assert (tmp_path / "out" / "manifest.json").exists()


def test_elsewhere_than_on_a_terminal_each_phase_is_one_line(run, tmp_path, quick):
    written = run("quantize", *quick, "--out", str(tmp_path / "out"), "-q", "--json")
    assert json.loads(written.out)["iterations"] == 4
    assert written.err == ""
    written = run("quantize", *quick, "--out", str(tmp_path / "other"))
    assert written.err.splitlines() == [
        "generator warms up: 1 step",
        "student learns: 3 steps",
        "measuring",
        "saving",
    ]


def test_methods_lists_them_all(run):
    first_words = [line.partition(" ")[0] for line in run("methods").out.splitlines()]
    assert set(METHODS) <= set(first_words)


@pytest.mark.parametrize(
    ("name", "width"), [*((name, 80) for name in [*METHODS, "adadfq+agm"]), ("adadfq+agm", 120)]
)
def test_every_method_has_its_page(run, monkeypatch, name, width):
    monkeypatch.setattr(printing, "_console", Console(width=width, highlight=False))
    text = run("methods", name).out
    assert all(len(line) <= width for line in text.splitlines())
    assert text.splitlines()[0].rstrip() == name
    method = cli_method(name)
    for add_on in (method, *method.add_ons):
        assert add_on.paper.venue in " ".join(text.split())
    assert all(preset in text for preset in method.presets)
    assert "Preset(" not in text
    assert " at 0x" not in text


def cli_method(name: str):
    from dreamquant.methods import find_method

    return find_method(name)


def test_a_page_reads_like_the_paper(run):
    lines = [line.rstrip() for line in run("methods", "gdfq").out.splitlines()]
    start = lines.index("Images: Generator")
    assert lines[start + 2 : start + 9] == [
        "minimises",
        "    1 × TeacherCrossEntropy",
        "        CE(z_p(x), y)",
        "  + 0.1 × BatchNormStatistics",
        "        1/L Σ_l [ mean_c (μ̂_lc - μ_lc)² + mean_c (σ̂²_lc - σ²_lc)² ]",
        "targets   OneHot(copies=1)",
        "latent    100",
    ]
    start = lines.index("Recovery, part 2: Train")
    assert lines[start + 3 : start + 8] == [
        "minimises",
        "    1 × StudentCrossEntropy",
        "        CE(z_q(x), y)",
        "  + 1 × KnowledgeDistillation(temperature=20)",
        "        T² KL(softmax(z_p/T) || softmax(z_q/T))",
    ]


def test_a_page_says_what_is_read_of_both_networks(run):
    lines = [" ".join(line.split()) for line in run("methods", "acq").out.splitlines()]
    assert "reads of the teacher BatchNormInputs(per_image=False), LastMap" in lines
    assert "reads of the student Output" in lines


def test_a_page_leaves_out_what_is_absent(run):
    text = run("methods", "gdfq").out
    assert "None" not in text
    assert "\ncondition " not in text
    assert "\ncondition " in run("methods", "acq").out


# ------------------------------------------------------------------------------- demo


def test_demo_replaces_an_earlier_one(run_json, brief_demo, tmp_path):
    first = run_json("demo", "--out", str(tmp_path / "out"))
    second = run_json("demo", "--out", str(tmp_path / "out"))
    assert list(first) == SUMMARY
    assert first | {"seconds": 0} == second | {"seconds": 0}


def test_the_demo_has_a_transformer_too(run_json, brief_demo, tmp_path):
    run_json("demo", "--transformer", "--out", str(tmp_path / "out"))
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["method"]["name"] == "psaq_vit"
    assert manifest["protocol"]["placement"] == "operands"


def test_a_stopped_demo_goes_on_by_the_same_command(run, brief_demo, tmp_path, monkeypatch):
    out = str(tmp_path / "it's out")
    with monkeypatch.context() as patched:
        interrupt_at(patched, 2)
        stopped = run("demo", "--out", out, code=130)
    assert stopped.err.endswith(
        f"resume with: {shlex.join(['dreamquant', 'demo', '--out', out])}\n"
    )
    went_on = run("demo", "--out", out).err
    assert "student learns: 3 steps" in went_on
    assert "generator warms up" not in went_on


# --------------------------------------------------------------------------- stopping


def test_the_state_of_a_stopped_run_is_where_the_command_line_looks():
    assert Path(folder.CHECKPOINT, checkpoint.STATE) == cli_ending._STATE


@pytest.mark.parametrize(("number", "iteration"), [(signal.SIGINT, 0), (signal.SIGTERM, 2)])
def test_a_run_stopped_within_an_iteration_is_resumed_to_the_same_bytes(
    run, saved, tmp_path, monkeypatch, number, iteration, data
):
    arguments = ("quantize", *DIGITS, *SHORT, *data, "--out", str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        interrupt_at(patched, iteration, number)
        stopped = run(*arguments, code=130)
    assert stopped.out == ""
    assert "stopped: the run is saved" in stopped.err
    command = stopped.err.splitlines()[-1].removeprefix("resume with: ")
    run(*shlex.split(command)[1:])
    for name in ("student.safetensors", "samples.png"):
        assert (tmp_path / "out" / name).read_bytes() == (saved / "result" / name).read_bytes()
    assert not (tmp_path / "out" / "checkpoint").exists()


def test_a_run_stopped_while_measuring_is_resumed_too(run, saved, tmp_path, monkeypatch, data):
    arguments = ("quantize", *DIGITS, *SHORT, *data, "--out", str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr("dreamquant.jobs.measurements.Measurements.finish", interrupted)
        assert "the run is saved" in run(*arguments, code=130).err
    run(*arguments, "--resume")
    whole = (saved / "result" / "student.safetensors").read_bytes()
    assert (tmp_path / "out" / "student.safetensors").read_bytes() == whole


def interrupted(*arguments: object, **options: object) -> None:
    raise KeyboardInterrupt


def test_a_run_stopped_before_it_began_says_so(run, tmp_path, monkeypatch):
    monkeypatch.setattr(api, "quantize", interrupted)
    written = run("quantize", *DIGITS, "--out", str(tmp_path / "out"), code=130)
    assert written.err == "\nstopped: nothing was saved\n"
    assert not (tmp_path / "out").exists()


def test_ctrl_c_in_a_real_process(run, tmp_path, data):
    out = tmp_path / "the user's out"
    # In float32: only this process is told what --precision auto shall be.
    length = ("--iterations", "6", "--device", "cpu", "--precision", "32")
    arguments = (*DIGITS, *data, "--bits", "w3a3", "--method", "adadfq", *length)
    process = subprocess.Popen(
        [*PROGRAM, "quantize", *arguments, "--out", str(out)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert "generator warms up: 1 step" in process.stderr.readline()
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=120)
    assert process.returncode == 130
    assert printed == ""
    command = shlex.join(["dreamquant", "quantize", "--resume", *arguments, "--out", str(out)])
    assert said.splitlines()[-1] == f"resume with: {command}"
    assert not (out / "manifest.json").exists()
    run(*shlex.split(command)[1:])
    assert (out / "manifest.json").exists()


# ------------------------------------------------------------------ memory, first step


# Not getrusage: its peak starts at what the parent had when it forked.
PEAK = """\
status = open('/proc/self/status').read()
print('peak', status.split('VmHWM:')[1].split()[0])
"""


@pytest.mark.long
@pytest.mark.real
def test_a_real_network_takes_half_a_gigabyte_beside_torch_and_starts_soon(tmp_path, real_data):
    few = tmp_path / "few.npz"
    with np.load(real_data / "cifar10" / "test_lossless.npz") as images:
        np.savez(few, images=images["images"][:100], labels=images["labels"][:100])
    networks = Path(__file__).resolve().parents[2] / "benchmarks" / "networks.py"
    command = [
        *("quantize", f"{networks}:cifar10_resnet20"),
        *("--weights", str(real_data / "weights" / "cifar10_resnet20.safetensors")),
        *("--input", "3x32x32", "--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225"),
        *("--bits", "w3a3", "--method", "adadfq", "--iterations", "4", "--device", "cpu", "-v"),
        *("--data", str(few)),
        *("--out", str(tmp_path / "out")),
    ]
    program = (
        "import sys\n"
        "from dreamquant.cli.main import main\n"
        "try:\n"
        "    main(sys.argv[1:])\n"
        "finally:\n" + "".join(f"    {line}\n" for line in PEAK.splitlines())
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", program, *command],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    assert "generator warms up: 1 step" in process.stderr.readline()
    spent = psutil.Process(process.pid).cpu_times()
    printed, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    # What `import torch` maps, half a gigabyte of its CUDA build, differs from machine to machine:
    # the run is held to what it takes itself. The whole test split would take 30 MB more.
    bare = subprocess.run(
        [sys.executable, "-c", f"import torch\n{PEAK}"], capture_output=True, text=True, check=True
    )
    taken = 1024 * (int(printed.split()[-1]) - int(bare.stdout.split()[-1]))
    assert taken + 30e6 < 2**29
    assert spent.user + spent.system < 10
