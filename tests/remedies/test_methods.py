"""Remedies of errors about methods and their parts, each done as it says."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import dreamquant
import tiny
from dreamquant import InputSpec, Method
from dreamquant.jobs.images import selected, with_images
from dreamquant.methods import ADD_ONS, find_method
from dreamquant.methods.any_output import for_task
from dreamquant.methods.method import Preset
from dreamquant.networks.attention_taps import HeadOutputs
from dreamquant.networks.taps import Collected, Output, Tap
from dreamquant.recovery.calibrate import Calibrate
from dreamquant.recovery.inundation import Inundation
from dreamquant.recovery.norms import ReestimateNorms
from dreamquant.recovery.reconstruct import Reconstruct
from dreamquant.recovery.redream import Redream
from dreamquant.recovery.refine import RefineImages
from dreamquant.recovery.train import Train
from dreamquant.recovery.units import find_units
from dreamquant.synthesis.drawn import Procedural
from dreamquant.synthesis.generator import Generator
from dreamquant.terms.contract import Step, Term
from dreamquant.terms.distillation import DifferenceEntropy
from dreamquant.terms.statistics import BatchNormStatistics
from dreamquant.terms.unit_error import UnitError
from remedies import ROOT, Trial, advises, command, quantized
from tiny_runs import short_method, tiny_network, tiny_run, tiny_teacher

IMAGES = Procedural(size=32)
MULTI = InputSpec(tiny.INPUT.shape, (0.5,), (0.25,), tiny.CLASSES, task="multi-label")


def resolved(name: str) -> Method:
    """A method for small images."""
    return find_method(name).resolved("quick", tiny.INPUT.shape)


def run(method: str | Method, **options: Any) -> dreamquant.Result:
    """A short run on the tiny network."""
    given: dict[str, Any] = {"iterations": 4, "input": tiny.INPUT, "device": "cpu", "quiet": True}
    return dreamquant.quantize(tiny_network(), "w4a4", method, **given | options)


def steps(method: Method) -> None:
    """The same for a method that is resolved."""
    tiny_run(method).to_the_end()


def own(recovery: Sequence[Any], images: Any = None) -> Method:
    """A method of one's own."""
    return replace(find_method("squant"), name="own", images=images, recovery=tuple(recovery))


@dataclass(frozen=True)
class Nothing(Tap[Tensor]):
    """A tap that collects nothing."""

    def require(self, network: nn.Module, example: Tensor) -> None:
        """No complaint."""

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """No tensors."""
        yield lambda: ()

    def value(self, tensors: Sequence[Tensor]) -> Tensor:
        """The first of them."""
        return tensors[0]


@dataclass(frozen=True)
class Reads(Term):
    """A loss that reads a condition, or a tap that it may not declare."""

    tap: Tap[Tensor] | None = None
    condition: str = ""
    teacher_taps: tuple[Tap[Any], ...] = ()

    def __call__(self, step: Step) -> Tensor:
        """Their mean."""
        read = step.teacher[self.tap] if self.tap else step.condition(self.condition)
        return read.float().mean()


def reading(term: Term) -> Method:
    """A method whose student has that loss too."""
    return short_method(train={"terms": (DifferenceEntropy(temperature=20), term)})


def pictures(folder: Path, count: int = 8) -> str:
    """Features that stand for pictures."""
    import numpy as np

    path = folder / f"{count}.npz"
    values = np.random.default_rng(0).uniform(size=(count, 1, 8, 8)).astype(np.float32)
    np.savez(path, features=values)
    return str(path)


def given(folder: Path, method: str = "genie") -> Method:
    """A method on pictures that are given."""
    return with_images(resolved(method), pictures(folder), tiny_teacher())


ALONE = DifferenceEntropy(temperature=20)
TRIALS = [
    # --------------------------------------------------------------------------------- names
    Trial(
        "methods/__init__.py:_look_up",
        lambda _: find_method("adadqf"),
        "did you mean 'adadfq'? `dreamquant methods` lists them all",
        lambda _: (find_method("adadfq"), command("methods")),
    ),
    Trial(
        "cli/main.py:methods",
        lambda _: command("methods", "adadqf"),
        "did you mean 'adadfq'?",
        lambda _: command("methods", "adadfq"),
    ),
    Trial(
        "methods/method.py:_preset",
        lambda _: find_method("gdfq").resolved("papers", (3, 8, 8)),
        "did you mean 'paper'? It has quick, quick-imagenet, paper, paper-imagenet",
        lambda _: [
            find_method("gdfq").resolved(name, (3, 8, 8))
            for name in ("quick", "quick-imagenet", "paper", "paper-imagenet")
        ],
    ),
    Trial(
        "methods/method.py:with_numbers",
        lambda _: find_method("gdfq").with_numbers(Preset(recovery={"Trains": {"batch": 4}})),
        "it has ReestimateNorms, Train",
        lambda _: find_method("gdfq").with_numbers(Preset(recovery={"Train": {"batch": 4}})),
    ),
    Trial(
        "methods/joining.py:renumbered",
        lambda _: find_method("gdfq").with_numbers(Preset(recovery={"Train": {"size": 4}})),
        "batch",
        lambda _: find_method("gdfq").with_numbers(Preset(recovery={"Train": {"batch": 4}})),
    ),
    # ------------------------------------------------------------------------------- add-ons
    Trial(
        "methods/joining.py:join: joins methods that have a generator",
        lambda _: resolved("squant+ris"),
        "leave it out, or join it to such a method: gdfq+ris",
        lambda _: (resolved("squant"), resolved("gdfq+ris")),
    ),
    Trial(
        "methods/joining.py:join: optimise the pixels",
        lambda _: resolved("gdfq+smi"),
        "leave it out, or join it to such a method: psaq_vit+smi",
        lambda _: (resolved("gdfq"), resolved("psaq_vit+smi")),
    ),
    Trial(
        "synthesis/pixels.py:__post_init__",
        lambda _: resolved("sardfq+smi"),
        "leave +smi out, or join it to psaq_vit or mimiq",
        lambda _: (resolved("sardfq"), resolved("mimiq+smi")),
    ),
    Trial(
        "methods/joining.py:_student_side: train the student",
        lambda _: resolved("squant+akt"),
        "leave it out, or join it to such a method: gdfq+akt",
        lambda _: (resolved("squant"), resolved("gdfq+akt")),
    ),
    Trial(
        "methods/joining.py:_beside",
        lambda _: resolved("gdfq+ris+ris"),
        "leave one of the two out",
        lambda _: resolved("gdfq+ris"),
    ),
    Trial(
        "methods/joining.py:_targets",
        lambda _: resolved("acq+ris"),
        "leave ris out",
        lambda _: resolved("acq"),
    ),
    Trial(
        "methods/method.py:joined",
        lambda _: resolved("gdfq+ait+ait"),
        "keep one of them",
        lambda _: resolved("gdfq+ait"),
    ),
    # ---------------------------------------------------------------------------- own methods
    Trial(
        "recovery/norms.py:phases",
        lambda _: run(own([ReestimateNorms(batches=2)])),
        "give the method images, or leave ReestimateNorms out",
        lambda _: (run(own([ReestimateNorms(batches=2), Calibrate()], IMAGES)), run("squant")),
    ),
    Trial(
        "recovery/train.py:phases",
        lambda _: run(own([Train([ALONE], iterations=4)])),
        "give the method images, or leave Train out",
        lambda _: (run(own([Calibrate(), Train([ALONE], iterations=4)], IMAGES)), run("squant")),
    ),
    Trial(
        "recovery/stepwise.py:drawn",
        lambda _: run(own([Reconstruct(count=8, batch=4, steps=2)])),
        "choose a method that has images",
        lambda _: run(own([Calibrate(), Reconstruct(count=8, batch=4, steps=2)], IMAGES)),
    ),
    Trial(
        "recovery/train.py:__post_init__",
        lambda _: short_method(train={"inundation": Inundation(), "weight_decay": 1e-4}),
        "let weight_decay be 0",
        lambda _: short_method(train={"inundation": Inundation(), "weight_decay": 0.0}),
    ),
    Trial(
        "synthesis/generator.py:__post_init__",
        lambda _: Generator([BatchNormStatistics()], alone=5, observe=6),
        "let observe be at most alone",
        lambda _: Generator([BatchNormStatistics()], alone=5, observe=5),
    ),
    Trial(
        "training/step.py:condition",
        lambda _: steps(reading(Reads(condition="tone"))),
        "give the method's image source that condition",
        lambda _: steps(short_method()),
    ),
    Trial(
        "training/watched.py:_require",
        lambda _: steps(reading(Reads(Nothing()))),
        "list it in the term's teacher_taps",
        lambda _: steps(reading(Declared())),
    ),
    Trial(
        "training/watched.py:__getitem__",
        lambda _: steps(reading(Reads(Nothing(), teacher_taps=(Nothing(),)))),
        "leave out the terms that read it",
        lambda _: steps(short_method()),
    ),
    Trial(
        "recovery/units.py:_chosen",
        lambda _: find_units(tiny_network(), ["0"], torch.zeros(2, 1, 8, 8), ["body*"]),
        "such as 0, 1, 2, 3",
        lambda _: find_units(tiny_network(), ["0"], torch.zeros(2, 1, 8, 8), ["0", "1", "2"]),
    ),
    Trial(
        "recovery/reconstruct.py:require_scheme",
        lambda f: quantized(
            f,
            method="brecq",
            iterations=4,
            elementwise=8,
            placement="layer-input",
            scheme="integer",
        ),
        "leave --elementwise out, or give --scheme paper",
        lambda f: (quantized(f, method="brecq", iterations=4, scheme="paper"),),
    ),
    # --------------------------------------------------------------------------------- tasks
    Trial(
        "methods/any_output.py:for_task",
        lambda _: for_task(resolved("adadfq"), "regression"),
        "use one that needs no classes: ",
        lambda _: for_task(resolved("squant"), "regression"),
    ),
    # -------------------------------------------------------------------------- given images
    Trial(
        "jobs/images.py:kept_images: reads no images",
        lambda f: given(f, "squant"),
        "choose a method that keeps its images, such as minutes, hast or genie",
        lambda f: [given(f, name) for name in ("minutes", "genie")],
    ),
    Trial(
        "jobs/images.py:kept_images: in turns",
        lambda f: given(f, "adadfq"),
        "choose a method that keeps its images, such as minutes, hast or genie",
        given,
    ),
    Trial(
        "jobs/images.py:with_images: goes on",
        lambda f: given(f, "sadag"),
        "leave it out, or choose a method such as genie",
        lambda f: (given(f, "genie"), resolved("sadag")),
    ),
    Trial(
        "jobs/images.py:with_images: nothing at",
        lambda f: with_images(resolved("genie"), str(f / "absent"), tiny_teacher()),
        "give a pool, a folder, .tar or .npz of images, or procedural",
        lambda f: (given(f), with_images(resolved("genie"), "procedural", tiny_teacher())),
    ),
    Trial(
        "jobs/images.py:selected: at most 1",
        lambda f: selected(given(f), 2.0, tiny_teacher()),
        "give 0.5",
        lambda f: selected(given(f), 0.5, tiny_teacher()),
    ),
    Trial(
        "jobs/images.py:selected: none are given",
        lambda f: run("genie", select=0.5),
        "add --images FOLDER",
        lambda f: run("genie", select=0.5, images=pictures(f)),
    ),
    Trial(
        "jobs/images.py:selected: logits of classes",
        lambda f: run("minutes", select=0.5, images=pictures(f), input=MULTI),
        "leave the option out",
        lambda f: run("minutes", images=pictures(f), input=MULTI),
    ),
]


@dataclass(frozen=True)
class HeadsError(UnitError):
    """A loss that reads what no block has."""

    student_taps = (Output(), HeadOutputs())


class Declared(Reads):
    """The term that declares what it reads."""

    def __init__(self) -> None:
        super().__init__(OfOutput(), "", (OfOutput(),))


@dataclass(frozen=True)
class OfOutput(Nothing):
    """A tap that collects the output."""

    @contextmanager
    def watch(self, network: nn.Module) -> Iterator[Collected]:
        """The output."""
        seen: list[Tensor] = []
        handle = network.register_forward_hook(lambda *a: seen.append(a[2]))
        try:
            yield lambda: tuple(seen)
        finally:
            handle.remove()


@pytest.mark.parametrize("trial", TRIALS, ids=lambda trial: trial.site)
def test_what_a_remedy_advises_works(trial: Trial, tmp_path: Path) -> None:
    trial.run(tmp_path)


def test_an_object_that_is_no_method(tmp_path: Path) -> None:
    (tmp_path / "m.py").write_text("mine = 3\n")
    with advises("methods/__init__.py:_own_method", "examples/my_method.py shows one"):
        find_method(f"{tmp_path / 'm.py'}:mine")
    assert find_method(f"{ROOT / 'examples/my_method.py'}:mine").name == "mine"


def test_methods_that_a_task_has(tmp_path: Path) -> None:
    with advises("methods/any_output.py:for_task", "use one that needs no classes") as made:
        for_task(resolved("adadfq"), "regression")
    names = made[-1].remedy.partition(": ")[2].split(", ")
    assert len(names) > 5
    for name in names:
        for_task(resolved(name), "regression")


def test_a_view_that_two_bring() -> None:
    agm = find_method("gdfq+agm")
    other = replace(ADD_ONS["agm"], student_terms=(), generator_terms=())
    with advises("methods/joining.py:_student_side: brings a view", "leave agm out"):
        (agm + other).joined()
    agm.joined()


def test_images_of_pixels_for_parts_that_refine_them() -> None:
    redream, refine = (
        Redream([BatchNormStatistics()], steps=2),
        RefineImages([BatchNormStatistics()], steps=2),
    )
    with advises("recovery/redream.py:phases", "give the method images=Pixels(…), or leave"):
        run(own([redream], IMAGES))
    with advises("recovery/refine.py:phases", "give the method images=Pixels(…), or leave"):
        run(own([refine], find_method("adadfq").images))
    pixels = resolved("hast").images
    run(own([redream, Calibrate()], pixels))
    run(own([refine, Calibrate()], pixels))
    run(own([Calibrate()], pixels))


def test_blocks_that_lack_what_a_term_reads() -> None:
    def blocks(*terms: Term) -> Method:
        return own([Calibrate(), Reconstruct(terms=terms, count=8, batch=4, steps=2)], IMAGES)

    with advises(
        "recovery/unit_step.py:require_taps", "terms that read nothing but a unit's output"
    ):
        run(blocks(UnitError(), HeadsError()))
    run(blocks(UnitError()))
