"""Bad input: one message that says what, where and what to do; exit code 2; nothing written."""

from __future__ import annotations

import errno
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dreamquant.cli import main as cli
from dreamquant.networks import demo
from dreamquant.synthesis.generator import Stream

NETWORK = f"{demo.NETWORK}:digits"
WEIGHTS = ("--weights", str(demo.WEIGHTS))
INPUT = ("--input", "1x8x8", "--mean", "0.3054", "--std", "0.3758")
DIGITS = (NETWORK, *WEIGHTS, *INPUT)
SHORT = ("--iterations", "4", "--device", "cpu", "--method", "adadfq")
DATA = ("--data", str(demo.HELD_OUT))

NO_BATCH_NORM = """
from torch import nn

def plain():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))

def broken():
    raise ValueError("out of paint")
"""


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    """A folder of files with which something is wrong."""
    folder = tmp_path_factory.mktemp("bad")
    weights = load_file(demo.WEIGHTS)
    for name, value in (("nan", float("nan")), ("infinite", float("-inf"))):
        broken = weights | {"0.weight": weights["0.weight"].clone()}
        broken["0.weight"][0, 0, 0, :2] = value
        save_file(broken, folder / f"{name}.safetensors")
    del broken["8.bias"]
    save_file(broken | {"8.weight": torch.zeros(7, 32)}, folder / "other.safetensors")
    (folder / "damaged.safetensors").write_bytes(b"hello")
    (folder / "networks.py").write_text(NO_BATCH_NORM)
    images = np.zeros((10, 8, 8, 1), np.uint8)
    np.savez(folder / "none.npz", images=images[:0], labels=np.zeros(0, np.uint8))
    np.savez(folder / "unlabelled.npz", images=images)
    np.savez(folder / "classes.npz", images=images, labels=np.full(10, 12))
    np.savez(folder / "size.npz", images=images[:, :5], labels=np.zeros(10, np.uint8))
    (folder / "damaged.npz").write_bytes(b"hello")
    (folder / "text.txt").write_text("hello")
    (folder / "empty").mkdir()
    return folder


@pytest.fixture
def refused(capsys, tmp_path, bad):
    """Run a command that must be refused; gives its message with short paths."""

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            cli.main(arguments)
        written = capsys.readouterr()
        assert stopped.value.code == 2, written.err
        assert written.out == ""
        places = {tmp_path: "TMP", bad: "BAD", NETWORK: "NETWORK", demo.NETWORK.parent: "DEMO"}
        for place, name in places.items():
            written = written._replace(err=written.err.replace(str(place), name))
        return written.err

    return call


@pytest.fixture
def refused_run(refused, tmp_path):
    """Run `quantize` on what must be refused, and see that no folder was made for it."""

    def call(*arguments: str) -> str:
        message = refused("quantize", *arguments, "--out", str(tmp_path / "out"))
        assert not (tmp_path / "out").exists()
        return message

    return call


def stop(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli.main(arguments)
    assert stopped.value.code == 130


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory) -> Path:
    """The folder of a run that was stopped."""
    folder = tmp_path_factory.mktemp("unfinished") / "out"
    with pytest.MonkeyPatch.context() as patched:
        usual = Stream.update

        def update(images: Stream) -> None:
            os.kill(os.getpid(), signal.SIGINT)
            usual(images)

        patched.setattr(Stream, "update", update)
        stop("quantize", *DIGITS, *SHORT, "--out", str(folder))
    return folder


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A result folder."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    with pytest.raises(SystemExit):
        cli.main(["quantize", *DIGITS, *SHORT, "--out", str(folder)])
    return folder


def listing(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# -------------------------------------------------------------- method, bits, schedule


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--method", "adafq"],
            "error: there is no method 'adafq'\n"
            "  where:  --method\n"
            "  remedy: did you mean 'adadfq'? `dreamquant methods` lists them all\n",
        ),
        (
            ["--method", "adadfq+riss"],
            "error: there is no add-on 'riss'\n"
            "  where:  --method\n"
            "  remedy: did you mean 'ris'? `dreamquant methods` lists them all\n",
        ),
        (
            ["--bits", "w4"],
            "error: 'w4' does not name bits\n"
            "  where:  --bits\n"
            "  remedy: write weights and activations like w4a4 or w8a8\n",
        ),
        (
            ["--bits", "w1a4"],
            "error: 1 bit is not supported\n"
            "  where:  --bits w1a4\n"
            "  remedy: choose 2 to 8 bits for weights and for activations\n",
        ),
        (
            ["--first-last", "9"],
            "error: 9 bits are not supported\n"
            "  where:  --first-last\n"
            "  remedy: choose 2 to 8 bits\n",
        ),
        (
            ["--override", "3.*"],
            "error: '3.*' does not name bits\n  where:  --override\n  remedy: write PATTERN=w8a8\n",
        ),
        (
            ["--budget", "soon"],
            "error: 'soon' is not a duration\n"
            "  where:  --budget\n"
            "  remedy: write 90s, 5min or 1.5h\n",
        ),
        (
            ["--budget", "0min"],
            "error: '0min' leaves no time\n  where:  --budget\n  remedy: write 5min\n",
        ),
        (
            ["--budget", "5min", "--iterations", "4"],
            "error: both iterations and a budget are given, and either sets the length of the run\n"
            "  where:  --iterations, --budget\n"
            "  remedy: give one of them\n",
        ),
        (
            ["--iterations", "0"],
            "error: 0 iterations are too few\n  where:  --iterations\n  remedy: give 1 or more\n",
        ),
        (
            ["--iterations", "-3"],
            "error: -3 iterations are too few\n  where:  --iterations\n  remedy: give 1 or more\n",
        ),
        (
            ["--seed", "-1"],
            "error: -1 is not a seed\n"
            "  where:  --seed\n"
            "  remedy: give a number from 0 to 4294967295\n",
        ),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_method_bits_or_schedule(refused_run, options, message):
    assert refused_run(*DIGITS, *options) == message


def test_an_unknown_preset_is_refused_with_those_there_are(refused_run):
    message = refused_run(*DIGITS, "--method", "gdfq", "--preset", "papers")
    assert message == (
        "error: method 'gdfq' has no preset 'papers'\n"
        "  where:  --preset\n"
        "  remedy: did you mean 'paper'? It has quick, quick-imagenet, paper, paper-imagenet\n"
    )


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_gpu_that_is_not_there_is_refused(refused_run):
    assert refused_run(*DIGITS, "--device", "cuda") == (
        "error: this machine has no CUDA device that PyTorch can use\n"
        "  where:  --device cuda\n"
        "  remedy: use --device auto or cpu; `dreamquant doctor` shows what was found\n"
    )


def test_diagnostics_need_what_draws_them(refused_run, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert refused_run(*DIGITS, "--diagnostics") == (
        "error: diagnostics are drawn by matplotlib, which cannot be used: import of "
        "matplotlib.figure halted; None in sys.modules\n"
        "  where:  --diagnostics\n"
        "  remedy: pip install 'dreamquant[report]'\n"
    )


# ---------------------------------------------------------------------------- networks


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["resnet20"],
            "error: 'resnet20' does not name a network\n"
            "  where:  NETWORK\n"
            "  remedy: give one of torchvision:NAME, timm:NAME, pytorchcv:NAME, FILE.py:FACTORY, "
            "FILE.onnx\n",
        ),
        (
            ["BAD/none.py:plain", *INPUT],
            "error: the file cannot be read: No such file or directory\n"
            "  where:  BAD/none.py\n"
            "  remedy: check the path\n",
        ),
        (
            ["BAD/networks.py:plane", *INPUT],
            "error: networks.py has no 'plane'; nearest: plain\n"
            "  where:  BAD/networks.py\n"
            "  remedy: it has plain, broken\n",
        ),
        (
            ["BAD/networks.py:broken", *INPUT],
            "error: networks.py broken() failed: ValueError: out of paint\n"
            "  where:  BAD/networks.py:8\n"
            "  remedy: correct the file there\n",
        ),
        (
            ["BAD/networks.py:plain", *INPUT, "--method", "adadfq"],
            "error: the method reads batch-norm statistics of the network, and it has no batch "
            "norm\n"
            "  where:  --method\n"
            "  remedy: choose a method that does not: `dreamquant methods NAME` says what it "
            "reads\n",
        ),
        (
            [NETWORK, *WEIGHTS],
            "error: the input of NETWORK is not fully known: --input, --mean, --std missing\n"
            "  where:  NETWORK\n"
            "  remedy: give --input, --mean, --std, with the values used in training\n",
        ),
        (
            [NETWORK, *WEIGHTS, "--input", "3x8x8", "--mean", "0,0,0", "--std", "1,1,1"],
            "error: NETWORK does not run on an input of 3x8x8: Given groups=1, weight of size "
            "[8, 1, 3, 3], expected input[2, 3, 8, 8] to have 1 channels, but got 3 channels "
            "instead\n"
            "  where:  --input\n"
            "  remedy: give the channels, height and width that it was trained with\n",
        ),
        (
            [NETWORK, *WEIGHTS, "--input", "8xx", "--mean", "0", "--std", "1"],
            "error: '8xx' is not an input shape\n  where:  --input\n"
            "  remedy: give CxHxW, such as 3x32x32, or the sides of a feature map, such as 98x40\n",
        ),
        (
            [NETWORK, *WEIGHTS, "--input", "1x8x8", "--mean", "0,0", "--std", "1"],
            "error: 2 values for 1 input channels\n"
            "  where:  --mean\n"
            "  remedy: give one number per channel, separated by commas\n",
        ),
        (
            [NETWORK, *WEIGHTS, "--input", "1x8x8", "--mean", "-0.5,grey", "--std", "1"],
            "error: '-0.5,grey' is not a list of numbers\n"
            "  where:  --mean\n"
            "  remedy: separate numbers by commas, for example 0.485,0.456,0.406\n",
        ),
        (
            [NETWORK, *WEIGHTS, "--input", "1x8x8", "--mean", "nan", "--std", "1"],
            "error: (nan,) contains a value that is not a finite number\n  where:  --mean\n"
            "  remedy: give finite numbers\n",
        ),
        (
            [NETWORK, *WEIGHTS, "--input", "1x8x8", "--mean", "0", "--std", "0"],
            "error: std (0.0,) is not positive\n  where:  --std\n  remedy: give numbers above 0\n",
        ),
        (
            [*DIGITS, "--classes", "100"],
            "error: NETWORK has 10 classes, not 100\n"
            "  where:  --classes\n"
            "  remedy: leave the option out, or give a network and weights with that many "
            "classes\n",
        ),
        (
            [*DIGITS, "--override", "head=w8a8"],
            "error: the override 'head' matches no layer\n"
            "  where:  overrides\n"
            "  remedy: layers are named 0, 3.0.conv1, 3.0.conv2, 3.1.conv1, 3.1.conv2, 3.2.conv1, "
            "3.2.conv2, 3.3.conv1\n",
        ),
    ],
    ids=lambda value: value[0].rpartition(":")[2] if isinstance(value, list) else "",
)
def test_bad_network(refused_run, bad, arguments, message):
    here = [argument.replace("BAD", str(bad)) for argument in arguments]
    assert refused_run(*here) == message


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "none.pt",
            "error: the weights file does not exist\n"
            "  where:  BAD/none.pt\n"
            "  remedy: check the path\n",
        ),
        (
            "damaged.safetensors",
            "error: the weights cannot be read: Error while deserializing header: header too "
            "small\n"
            "  where:  BAD/damaged.safetensors\n"
            "  remedy: save it again with torch.save(model.state_dict(), FILE) or as safetensors\n",
        ),
        (
            "text.txt",
            "error: the weights cannot be read: it is damaged or is not a weights file\n"
            "  where:  BAD/text.txt\n"
            "  remedy: save it again with torch.save(model.state_dict(), FILE) or as safetensors\n",
        ),
        (
            "other.safetensors",
            "error: the weights do not fit the network\n"
            "  1 missing: 8.bias\n"
            "  1 of another shape or type: 8.weight float32 (7, 32) instead of float32 (10, 32)\n"
            "  198 of 200 fit; the longest common part is 0.weight to "
            "5.4.bn2.num_batches_tracked\n"
            "  where:  BAD/other.safetensors\n"
            "  remedy: give the architecture that the weights were trained in; give --classes if "
            "only the "
            "last layer differs\n",
        ),
        (
            "nan.safetensors",
            "error: the weights are not finite: 0.weight: 2 NaN, 0 infinite of 72\n"
            "  where:  BAD/nan.safetensors\n"
            "  remedy: use a checkpoint from before the training diverged\n",
        ),
        (
            "infinite.safetensors",
            "error: the weights are not finite: 0.weight: 0 NaN, 2 infinite of 72\n"
            "  where:  BAD/infinite.safetensors\n"
            "  remedy: use a checkpoint from before the training diverged\n",
        ),
    ],
)
def test_bad_weights(refused_run, bad, file, message):
    assert refused_run(NETWORK, "--weights", str(bad / file), *INPUT) == message


# --------------------------------------------------------------------- evaluation data


@pytest.mark.parametrize(
    ("file", "message"),
    [
        (
            "nothing.npz",
            "error: the images do not exist\n"
            "  where:  BAD/nothing.npz\n"
            "  remedy: give a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT\n",
        ),
        (
            "none.npz",
            "error: there are no images\n"
            "  where:  BAD/none.npz\n"
            "  remedy: give a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT with "
            "images\n",
        ),
        (
            "empty",
            "error: there are no images\n"
            "  where:  BAD/empty\n"
            "  remedy: give a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT with "
            "images\n",
        ),
        (
            "text.txt",
            "error: the form of the images is not known\n"
            "  where:  BAD/text.txt\n"
            "  remedy: give a folder of images, an .npz, a .tar, or torchvision:NAME:ROOT\n",
        ),
        (
            "damaged.npz",
            "error: the .npz cannot be read: it is damaged, contains more than numbers, or "
            "unpacks to "
            "far more than its size\n"
            "  where:  BAD/damaged.npz\n"
            "  remedy: save it again with numpy.savez(file, images=..., labels=...)\n",
        ),
        (
            "size.npz",
            "error: images have shape (10, 5, 8, 1), but the network takes 1 x 8 x 8\n"
            "  where:  BAD/size.npz\n"
            "  remedy: save them as uint8 (N, 8, 8, 1); only image files are scaled and "
            "converted\n",
        ),
        (
            "classes.npz",
            "error: labels go from 12 to 12, but the network has 10 classes (0 to 9)\n"
            "  where:  BAD/classes.npz\n"
            "  remedy: give images of the classes that the network was trained on\n",
        ),
    ],
)
def test_bad_images(refused_run, refused, bad, file, message):
    assert refused_run(*DIGITS, "--data", str(bad / file)) == message
    assert refused("evaluate", *DIGITS, "--data", str(bad / file)) == message


# --------------------------------------------------------------------- the result folder


def test_a_folder_with_a_result_is_left_alone(refused, finished):
    before = listing(finished)
    message = refused("quantize", *DIGITS, *SHORT, "--out", str(finished))
    assert message == (
        f"error: {finished} already contains a result\n"
        "  where:  --out\n"
        "  remedy: give another folder, or delete this one\n"
    )
    assert listing(finished) == before


def test_a_folder_with_an_unfinished_run_is_left_alone(refused, unfinished):
    before = listing(unfinished)
    assert refused("quantize", *DIGITS, *SHORT, "--out", str(unfinished)) == (
        f"error: {unfinished} holds an unfinished run\n"
        "  where:  --out\n"
        "  remedy: add --resume to go on with it, or give another folder\n"
    )
    assert listing(unfinished) == before


def test_a_file_is_no_folder(refused, bad):
    assert refused("quantize", *DIGITS, *SHORT, "--out", str(bad / "text.txt")) == (
        "error: cannot make the folder: File exists\n"
        "  where:  BAD/text.txt\n"
        "  remedy: choose a folder that you may write to\n"
    )
    assert (bad / "text.txt").read_text() == "hello"


def test_the_demo_replaces_nothing_but_a_demo(refused, tmp_path, finished):
    manifest = tmp_path / "manifest.json"
    text = (finished / "manifest.json").read_text()
    manifest.write_text(text.replace('"weights_sha256": "', '"weights_sha256": "other'))
    assert refused("demo", "--out", str(tmp_path)) == (
        "error: TMP already contains a result\n"
        "  where:  --out\n"
        "  remedy: give another folder, or delete this one\n"
    )
    assert manifest.exists()


@pytest.mark.parametrize(
    ("options", "difference"),
    [
        ([*SHORT, "--bits", "w3a4"], "bits = 'w4a4', this run has 'w3a4'"),
        ([*SHORT, *DATA], "data = None, this run has 'DEMO/held_out.npz'"),
    ],
)
def test_resume_with_other_options(refused, unfinished, options, difference):
    before = listing(unfinished)
    arguments = (*DIGITS, *options, "--out", str(unfinished), "--resume")
    assert refused("quantize", *arguments) == (
        f"error: the checkpoint was made with {difference}\n"
        f"  where:  {unfinished / 'checkpoint'}\n"
        "  remedy: give the same options as before, or another --out\n"
    )
    assert listing(unfinished) == before


def no_space(*arguments: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")


def test_a_full_disk(refused, tmp_path, monkeypatch, capsys):
    arguments = ("quantize", *DIGITS, *SHORT, "--out", str(tmp_path / "out"))
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", no_space)
        message = refused(*arguments)
    # Progress comes before.
    assert message.partition("error: ")[2] == (
        "cannot write state.pt: No space left on device\n"
        "  where:  TMP/out/checkpoint/state.pt\n"
        "  remedy: free some space, or write to another disk\n"
    )
    left = {path.relative_to(tmp_path / "out").parts[0] for path in listing(tmp_path / "out")}
    assert left <= {"log"}
    # With space, the very same command goes through.
    with pytest.raises(SystemExit) as done:
        cli.main(arguments)
    assert not done.value.code


def test_a_disk_that_fills_up_beneath_other_libraries(refused, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter.add_scalar", no_space)
    message = refused("quantize", *DIGITS, *SHORT, "--out", str(tmp_path / "out"))
    assert message.partition("error: ")[2] == (
        "cannot write log: No space left on device\n"
        "  where:  TMP/out/log\n"
        "  remedy: free some space, or write to another disk\n"
    )


# ---------------------------------------------------------------------------- evaluate


def test_a_folder_that_is_no_result(refused, bad):
    assert refused("evaluate", str(bad), *DATA) == (
        "error: BAD is not a result of dreamquant: it has no manifest.json\n"
        "  where:  BAD\n"
        "  remedy: give the --out folder of a finished run\n"
    )


@pytest.mark.parametrize("target", ["out/nothing", "resnet20"])
def test_neither_result_nor_network(refused, target):
    assert refused("evaluate", target, *DATA) == (
        f"error: {target} is neither a result folder nor a network\n"
        "  where:  dreamquant evaluate\n"
        "  remedy: give the --out folder of a finished run, or a network as `dreamquant quantize` "
        "takes it\n"
    )


def test_nothing_to_measure(refused, bad, finished):
    message = (
        "error: nothing can be measured: the images have no labels, and there is no teacher "
        "to compare with\n"
        "  where:  BAD/unlabelled.npz\n"
        "  remedy: give labelled images, or a result and, by --weights, its teacher's weights\n"
    )
    assert refused("evaluate", *DIGITS, "--data", str(bad / "unlabelled.npz")) == message


def test_a_result_knows_its_input(refused, finished):
    assert refused("evaluate", str(finished), *DATA, "--mean", "0", "--classes", "10") == (
        "error: a result already contains the input and the classes of its network\n"
        "  where:  --mean, --classes\n"
        "  remedy: leave these options out\n"
    )


def test_weights_of_another_teacher(refused, finished, tmp_path):
    weights = {name: tensor + 1 for name, tensor in load_file(demo.WEIGHTS).items()}
    save_file(weights, tmp_path / "other.safetensors")
    given = ("--weights", str(tmp_path / "other.safetensors"))
    assert refused("evaluate", str(finished), *DATA, *given) == (
        "error: these are not the weights that the result was made from\n"
        "  where:  TMP/other.safetensors\n"
        "  remedy: give --weights FILE with the teacher's weights\n"
    )
    missing = ("--weights", str(tmp_path / "missing.pt"))
    assert refused("evaluate", str(finished), *DATA, *missing) == (
        "error: the weights file does not exist\n  where:  TMP/missing.pt\n"
        "  remedy: check the path\n"
    )


def test_no_image_is_too_few(refused, finished):
    assert refused("evaluate", str(finished), *DATA, "--limit", "0") == (
        "error: --limit is 0\n  where:  --limit\n  remedy: give a number from 1 up\n"
    )


def test_an_unknown_method_has_no_page(refused):
    assert refused("methods", "adafq") == (
        "error: there is no method 'adafq'\n"
        "  where:  dreamquant methods\n"
        "  remedy: did you mean 'adadfq'? `dreamquant methods` lists them all\n"
    )


# ------------------------------------------------------------------------------- usage


@pytest.mark.parametrize(
    ("arguments", "what"),
    [
        (["quantize"], "NETWORK is missing"),
        (["quantize", NETWORK], "--out is missing"),
        (["quantize", NETWORK, "--out"], "--out needs a value"),
        (["quantize", NETWORK, "other", "--out", "OUT"], "unexpected: other"),
        (
            ["quantize", NETWORK, "--out", "OUT", "--bit", "w4a4"],
            "Unknown option: --bit. Did you mean --bits?",
        ),
        (
            ["quantize", NETWORK, "--out", "OUT", "--seed", "zero"],
            "Invalid value for --seed: 'zero' is no whole number",
        ),
        (
            ["quantize", NETWORK, "--out", "OUT", "--iterations", "1.5"],
            "Invalid value for --iterations: '1.5' is no whole number",
        ),
        (
            ["quantize", NETWORK, "--out", "OUT", "--placement", "relu"],
            'Invalid value "relu" for --placement. Choose from: "relu-output", "layer-input", '
            '"operands".',
        ),
        (
            ["quantize", NETWORK, "--out", "OUT", "--task", "detection"],
            "Invalid value for --task: 'detection' is not one of classification, multi-label, "
            "segmentation, regression",
        ),
        (
            ["quantize", NETWORK, "--out", "OUT", "--seed", "1", "--seed", "2"],
            "Parameter --seed specified multiple times.",
        ),
        (
            ["evaluate", "out", "--data", "x", "--limit", "few"],
            "Invalid value for --limit: 'few' is no whole number",
        ),
        (["methods", "gdfq", "adadfq"], "unexpected: adadfq"),
        (["doctor", "--verbose"], "Unknown option: --verbose."),
    ],
    ids=lambda value: " ".join(value[:1] + value[2:]) if isinstance(value, list) else "",
)
def test_usage(refused, tmp_path, arguments, what):
    out = tmp_path / "out"
    message = refused(*(str(out) if argument == "OUT" else argument for argument in arguments))
    command = f"dreamquant {arguments[0]}"
    assert message == (
        f"error: {what}\n  where:  {command}\n  remedy: `{command} --help` shows what it takes\n"
    )
    assert not out.exists()


def test_an_unknown_command(refused):
    assert refused("quantise") == (
        'error: Unknown command "quantise". Did you mean "quantize"? Available commands: '
        "quantize, distill, dream, evaluate, export, predict, benchmark, methods, ...\n"
        "  where:  dreamquant\n"
        "  remedy: `dreamquant --help` shows what it takes\n"
    )
