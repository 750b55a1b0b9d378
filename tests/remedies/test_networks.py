"""Remedies of errors about networks, each done as it says."""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dreamquant
import tiny
from dreamquant import InputSpec
from dreamquant.methods import find_method
from dreamquant.networks.attention_taps import HeadOutputs
from dreamquant.networks.classifier_input import ClassifierInput, classifier_weight
from dreamquant.networks.load import inheriting, load_network, untrained
from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.networks.origins import find, named_boxes
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.stage_maps import StageMaps
from dreamquant.networks.zoo import ZOOS
from dreamquant.synthesis.token_stopping import grid
from remedies import Trial, advises
from tiny_runs import tiny_network, tiny_teacher

EXAMPLE = torch.zeros(2, 1, 8, 8)
KNOWN: dict[str, Any] = {"shape": (1, 8, 8), "mean": (0.0,), "std": (1.0,)}
FILE = """
import torch
from torch import nn

def make(width=8):
    conv = nn.Conv2d(1, width, 3)
    return nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(36 * width, 5)).eval()

net, number = make(), 3
"""


PAIR = FILE.replace("nn.Linear(36 * width, 5))", "nn.Linear(36 * width, 5), Pair())").replace(
    "def make", "class Pair(nn.Module):\n    def forward(self, x):\n        return x, x\n\ndef make"
)
FIRST = PAIR.replace("return x, x", "return x")


class Calls(nn.Module):
    """A convolution, a linear layer, and then any function."""

    def __init__(self, then: Callable[[Tensor], Any] | None = None, classes: int = 5) -> None:
        super().__init__()
        self.conv, self.head, self.then = nn.Conv2d(1, 4, 3), nn.Linear(4, classes), then

    def forward(self, x: Tensor) -> Any:
        """What the function gives for the logits (B, 5)."""
        x = self.head(self.conv(x).relu().mean((2, 3)))
        return x if self.then is None else self.then(x)


def run(network: nn.Module, method: str = "squant", **options: Any) -> None:
    """A run of a moment."""
    given: dict[str, Any] = {"input": tiny.INPUT, "device": "cpu", "quiet": True, "iterations": 2}
    dreamquant.quantize(network.eval(), "w8a8", method, **given | options)


def after(then: Callable[[Tensor], Any] | None, **options: Any) -> Callable[[Path], None]:
    """A run on logits that go through a function."""
    return lambda _: run(Calls(then), **options)


def loads(text: str, name: str = "make", **options: Any) -> Callable[[Path], None]:
    """Loads ``name`` from a file with this text."""

    def go(folder: Path) -> None:
        (folder / "net.py").write_text(text)
        load_network(f"{folder / 'net.py'}:{name}", **KNOWN | options)

    return go


def file_of(folder: Path) -> Path:
    """A file with a network."""
    (folder / "good.py").write_text(FILE)
    return folder / "good.py"


def good(folder: Path, name: str = "make", **options: Any) -> None:
    """A network that loads."""
    load_network(f"{file_of(folder)}:{name}", **KNOWN | options)


def plain() -> nn.Module:
    """No batch norm, no attention, no map."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))


def tapped(tap: Any, network: Callable[[], nn.Module] = plain) -> Callable[[Path], None]:
    """Asks whether a network has what a tap reads."""
    return lambda _: tap.require(network().eval(), EXAMPLE)


def reads_nothing(_: Path) -> None:
    """A method that reads nothing inside the network, as its page says."""
    run(plain(), "squant", placement="layer-input")


PLANE = InputSpec((8, 8), (0.5,), (0.25,), 5)


class Flat(nn.Module):
    """A network for feature maps without channels, as keyword spotters are."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Any:
        """Logits (B, 5) for (B, 8, 8)."""
        return self.head(self.norm(self.stem(x)).relu().mean(2))


class Wrapped(Flat):
    """The same for (B, 1, 8, 8)."""

    def forward(self, x: Tensor) -> Any:
        """Logits (B, 5)."""
        return super().forward(x.squeeze(1))


class Heads(nn.Module):
    """Attention of some heads, with or without keys of its own."""

    def __init__(self, heads: int = 1, *, own_keys: bool = False) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(1, 8, 4, 4), nn.Linear(8, 5)
        self.attention = nn.MultiheadAttention(8, heads, add_bias_kv=own_keys, batch_first=True)

    def forward(self, x: Tensor) -> Any:
        """Logits (B, 5)."""
        x = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(x, x, x)[0].mean(1))


def one_image_apart(x: Tensor) -> Tensor:
    """The logits without their first dimension."""
    return x.flatten()


def boxed(name: str) -> Callable[[Path], None]:
    """Finds what makes boxes."""

    def go(folder: Path) -> None:
        (folder / "boxes.py").write_text("number = 3\ndef boxes(outputs):\n    return outputs\n")
        named_boxes(name.replace("FILE", str(folder / "boxes.py")))

    return go


class Holds(nn.Sequential):
    """A network with an attribute that cannot be copied."""

    lock: Any

    def __init__(self, lock: Any) -> None:
        super().__init__(nn.Flatten(), nn.Linear(64, 5))
        self.lock = lock


class Locked(Holds):
    """The same that says how it is copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Locked:
        memo[id(self)] = made = type(self).__new__(type(self))
        made.__dict__ = copy.deepcopy(vars(self) | {"lock": None}, memo)
        return made


class Stubborn(nn.Sequential):
    """A network that says that it cannot be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> Stubborn:
        raise RuntimeError("there is one of me")


STUBBORN = """
from torch import nn

class Stubborn(nn.Sequential):
    def __deepcopy__(self, memo):
        raise RuntimeError("there is one of me")

def make():
    return Stubborn(nn.Flatten(), nn.Linear(64, 5))
"""


class Rounded(torch.autograd.Function):
    """An operation without a derivative."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # type: ignore[override]
        """Unchanged."""
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        """None."""
        raise NotImplementedError("it has no derivative")


def scripted(folder: Path) -> None:
    """A run of a scripted network."""
    run(torch.jit.trace(plain().eval(), EXAMPLE))


def unscripted(folder: Path) -> None:
    """The Python class, with the weights that are in the script."""
    torch.manual_seed(0)
    script: Any = torch.jit.trace(plain().eval(), EXAMPLE)
    torch.save(script.state_dict(), folder / "weights.pt")
    text = "from torch import nn\ndef make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 5))"
    loads(text, weights=folder / "weights.pt")(folder)


def exported(folder: Path) -> None:
    """A run of an exported network."""
    program: Any = torch.export.export(plain().eval(), (EXAMPLE,))
    dreamquant.quantize(program.module(), "w8a8", input=tiny.INPUT, device="cpu", quiet=True)


def built_with(classes: int) -> Callable[[Path], None]:
    """A student of so many classes."""

    def go(folder: Path) -> None:
        (folder / "net.py").write_text(FILE.replace("width, 5", f"width, {classes}"))
        untrained(f"{folder / 'net.py'}:make", tiny_teacher(), 0)

    return go


TRIALS = [
    Trial(
        "networks/spec.py:image",
        lambda _: run(Flat(), "gdfq", input=PLANE),
        "wrap the network so that it takes 1xHxW: x.squeeze(1)",
        lambda _: run(Wrapped(), "gdfq"),
    ),
    # ------------------------------------------------------------------ what methods read
    Trial(
        "networks/attention_taps.py:require: the network has none",
        tapped(HeadOutputs()),
        "choose a method for convolutional networks",
        reads_nothing,
    ),
    Trial(
        "networks/attention_taps.py:require: heads",
        tapped(HeadOutputs(heads=2), Heads),
        "use psaq_vit or sardfq",
        lambda _: [
            tap.require(Heads().eval(), EXAMPLE)
            for name in ("psaq_vit", "sardfq")
            for tap in find_method(name).resolved("quick", (1, 8, 8)).teacher_taps
        ],
    ),
    Trial(
        "networks/token_sets.py:find_token_set",
        lambda _: run(Heads(), "psaq_vit+smi"),
        "leave +smi out",
        lambda _: run(Heads(), "psaq_vit"),
    ),
    Trial(
        "synthesis/token_stopping.py:grid",
        lambda _: grid(7, (8, 8)),
        "leave +smi out",
        lambda _: run(Heads(), "psaq_vit"),
    ),
    Trial(
        "networks/classifier_input.py:classifier_weight: runs no such layer",
        lambda _: classifier_weight(nn.Flatten().eval(), EXAMPLE, 5),
        "choose another method",
        reads_nothing,
    ),
    Trial(
        "networks/classifier_input.py:classifier_weight: rows",
        lambda _: classifier_weight(plain().eval(), EXAMPLE, 10),
        "choose a method or a preset that does not read this weight, such as gdfq",
        lambda _: run(tiny_network(), "gdfq"),
    ),
    Trial(
        "networks/classifier_input.py:require",
        tapped(ClassifierInput(), nn.Flatten),
        "choose another method",
        reads_nothing,
    ),
    Trial(
        "networks/module_outputs.py:require",
        tapped(NormOutputs()),
        "choose another method",
        reads_nothing,
    ),
    Trial(
        "networks/norm_inputs.py:require",
        tapped(BatchNormInputs()),
        "choose a method that does not",
        reads_nothing,
    ),
    Trial(
        "networks/relu_maps.py:require",
        tapped(LastMap()),
        "use a method without attention or robustness terms, such as gdfq",
        lambda _: [
            tap.require(tiny_network(), EXAMPLE)
            for tap in find_method("gdfq").resolved("quick", (1, 8, 8)).teacher_taps
        ],
    ),
    Trial(
        "networks/stage_maps.py:require",
        tapped(StageMaps()),
        "choose another method",
        reads_nothing,
    ),
    Trial(
        "diagnostics/images.py:observed",
        lambda _: run(plain(), placement="layer-input", diagnostics=True),
        "leave the option out",
        reads_nothing,
    ),
    # -------------------------------------------------------------------------- placements
    Trial(
        "networks/attention.py:__init__",
        lambda _: run(Heads(own_keys=True), placement="operands", scheme="paper"),
        "use --placement layer-input, which leaves it in float and says so",
        lambda _: run(Heads(own_keys=True), placement="layer-input"),
    ),
    Trial(
        "quantization/placement.py:survey",
        lambda _: run(plain(), placement="relu-output", scheme="paper"),
        "use --placement layer-input",
        reads_nothing,
    ),
    Trial(
        "quantization/convert.py:_require_quantizable: no convolution",
        lambda _: run(
            nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.ReLU()),
            input=InputSpec((1, 8, 8), (0.0,), (1.0,), 4),
        ),
        "nn.Conv*, nn.ConvTranspose* and nn.Linear",
        reads_nothing,
    ),
    # -------------------------------------------------------------------------- its output
    Trial(
        "networks/outputs.py:require_per_image: images has the shape",
        after(one_image_apart),
        "wrap the network so that the first dimension of every output is the batch",
        after(lambda x: one_image_apart(x).unflatten(0, (-1, 5))),
    ),
    Trial(
        "networks/outputs.py:require_per_image: no tensor",
        after(lambda x: []),
        "let its forward return one",
        after(None),
    ),
    Trial(
        "networks/outputs.py:_named",
        after(lambda x: (x, "text")),
        "wrap the network so that it returns one tensor, or tensors in a tuple, list or dictionary",
        after(
            lambda x: {"logits": x, "all": [x, (x,)]},
            input=InputSpec((1, 8, 8), (0.0,), (1.0,), 0, task="regression"),
        ),
    ),
    Trial(
        "networks/task.py:require_task",
        lambda folder: loads(PAIR, task="classification")(folder),
        "give --task regression, which takes any outputs, or wrap the network",
        lambda folder: (loads(PAIR, task="regression")(folder), loads(FIRST)(folder)),
    ),
    Trial(
        "networks/observed.py:observe",
        lambda f: good(f, num_classes=7),
        "leave the option out",
        good,
    ),
    Trial(
        "networks/observed.py:running",
        lambda f: good(f, shape=(3, 8, 8), mean=(0.0,) * 3, std=(1.0,) * 3),
        "give the channels, height and width that it was trained with",
        good,
    ),
    Trial(
        "networks/expected.py:unknown_input",
        lambda f: load_network(f"{file_of(f)}:make"),
        "give --input, --mean, --std",
        good,
    ),
    # ---------------------------------------------------------------------------- its form
    Trial(
        "networks/copying.py:_refusal: set that attribute",
        lambda _: run(Holds(threading.Lock())),
        "set that attribute to None first, or give its class a __deepcopy__",
        lambda _: (
            run(Holds(None), placement="layer-input"),
            run(Locked(threading.Lock()), placement="layer-input"),
        ),
    ),
    Trial(
        "networks/forms.py:plain_form",
        lambda _: run(nn.Sequential(nn.Flatten(), nn.LazyLinear(5))),
        "create the weights in the factory, without lazy modules or the meta device",
        reads_nothing,
    ),
    Trial(
        "networks/forms.py:require_python",
        scripted,
        "torch.save(scripted.state_dict(), FILE), then --weights FILE",
        unscripted,
    ),
    Trial("networks/forms.py:exported_program", exported, "FILE.py:FACTORY", good),
    Trial(
        "networks/failures.py:naming_lines",
        after(Rounded.apply, method="gdfq"),  # type: ignore[arg-type]
        "correct the code there: training needs its derivative",
        after(None),
    ),
    # --------------------------------------------------------------------------- students
    Trial(
        "networks/load.py:untrained",
        built_with(7),
        "give a network with as many classes as the teacher",
        built_with(5),
    ),
    Trial(
        "networks/load.py:inheriting",
        lambda f: inheriting(load_network(f"{file_of(f)}:make", **KNOWN), tiny_teacher()),
        "leave the option out: the student then starts from random weights",
        built_with(5),
    ),
    # ------------------------------------------------------------------------------- names
    Trial(
        "networks/origins.py:find",
        lambda _: find("torchvision:resnet18", pretrained=False, num_classes=1),
        "give FILE.py:FACTORY; let the factory return the zoo's network with it",
        loads(
            "from torchvision.models import resnet18\ndef make(): return resnet18(num_classes=1)",
            shape=(3, 32, 32),
            mean=(0.0,) * 3,
            std=(1.0,) * 3,
        ),
    ),
    Trial(
        "networks/origins.py:named_boxes: does not name a function",
        boxed("boxes"),
        "give FILE.py:NAME",
        boxed("FILE:boxes"),
    ),
    Trial(
        "networks/origins.py:named_boxes: is not a function",
        boxed("FILE:number"),
        "give FILE.py:NAME",
        boxed("FILE:boxes"),
    ),
    Trial(
        "networks/origins.py:_read_factory",
        lambda _: load_network("resnet20"),
        "FILE.py:FACTORY",
        good,
    ),
    Trial(
        "networks/origins.py:_build: () returns",
        lambda f: loads("def make(): return 3")(f),
        "let it return the network",
        good,
    ),
    Trial(
        "networks/user_file.py:read_user_file",
        lambda f: load_network(f"{f / 'absent.py'}:make", **KNOWN),
        "check the path",
        good,
    ),
    Trial(
        "networks/user_file.py:_literals",
        lambda f: good(f, "make(width=wide)"),
        "give numbers, strings or lists, such as FILE.py:Net(width=0.5)",
        lambda f: good(f, "make(width=16)"),
    ),
    Trial(
        "networks/user_file.py:value_and_rest",
        lambda f: good(f, "made"),
        "it has make, net",
        lambda f: (good(f, "make"), good(f, "net")),
    ),
    Trial(
        "networks/user_file.py:_imported",
        loads("import absent_module_of_mine"),
        "install absent_module_of_mine, or put its file beside this one",
        lambda f: (
            (f / "absent_module_of_mine.py").touch(),
            loads("import absent_module_of_mine\n" + FILE)(f),
        ),
    ),
    Trial(
        "networks/origins.py:_build: failed",
        loads("def make(): return 1 / 0"),
        "correct the file there",
        good,
    ),
    Trial(
        "networks/origins.py:_build: failed",
        lambda f: good(f, "make(8, 9)"),
        "width",
        lambda f: good(f, "make(8)"),
    ),
]


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, tmp_path: Path) -> None:
    trial.run(tmp_path)


def test_a_network_that_refuses_to_be_copied(tmp_path: Path) -> None:
    with advises("networks/copying.py:_refusal: give the network", "give the network as FILE"):
        run(Stubborn(nn.Flatten(), nn.Linear(64, 5)))
    loads(STUBBORN)(tmp_path)


def test_zoos(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torchvision")
    build = ZOOS["torchvision"]
    with advises("networks/zoo.py:_require_known", "give a name that this version of torchvision"):
        build("resnet19", pretrained=False)
    build("resnet18", pretrained=False)
    with advises("networks/zoo.py:_building", "check --classes, or give another network"):
        build("resnet18", pretrained=False, num_classes=-1)
    build("resnet18", pretrained=False, num_classes=5)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "torchvision", None)
        patch.setitem(sys.modules, "torchvision.models", None)
        with advises("networks/zoo.py:_unusable", 'pip install "dreamquant[zoo]"'):
            build("resnet18", pretrained=False)
    build("resnet18", pretrained=False)
