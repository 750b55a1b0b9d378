"""Steps made of given numbers, whose views refuse what a term has not declared; every term."""

from __future__ import annotations

import importlib
import pkgutil
from types import SimpleNamespace

from dreamquant import terms
from dreamquant.networks.module_outputs import NormOutputs
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.networks.relu_maps import LastMap
from dreamquant.networks.taps import Output
from dreamquant.terms.activation_maps import MapOfOutput
from dreamquant.terms.adaptability import Balance, Band
from dreamquant.terms.contract import Term
from dreamquant.terms.distillation import DifferenceEntropy, KnowledgeDistillation
from dreamquant.training.watched import View

# Terms without numbers of their own are made by name.
_NUMBERED = {
    Band: Band(lower=0.1, upper=0.8),
    Balance: Balance(disagree=0.2, agree=0.1),
    KnowledgeDistillation: KnowledgeDistillation(temperature=20),
    DifferenceEntropy: DifferenceEntropy(temperature=20),
}


def every_term():
    """One of each kind of term in the package, whichever method has it."""
    for module in pkgutil.iter_modules(terms.__path__, f"{terms.__name__}."):
        importlib.import_module(module.name)
    kinds = [kind for kind in Term.__subclasses__() if kind.__module__.startswith(terms.__name__)]
    kinds.sort(key=lambda kind: kind.__name__)
    return [_NUMBERED[kind] if kind in _NUMBERED else kind() for kind in kinds]


class NotedView(View):
    """A view that notes what was asked of it; more attributes may be set on it."""

    def __init__(self, output, values, **limits):
        super().__init__(lambda: (output, values), **limits)
        self.reads = set()

    def _require(self, tap):
        self.reads.add(tap)
        super()._require(tap)


def given_view(
    output=None,
    last_map=None,
    statistics=None,
    of_images=None,
    norm_outputs=None,
    taps=None,
    **limits,
):
    """What a network answers, ``taps`` by themselves; ``limits`` as of :class:`View`."""
    values = {
        LastMap(): last_map,
        MapOfOutput(): last_map,
        BatchNormInputs(): statistics,
        BatchNormInputs(per_image=True): of_images,
        NormOutputs(): norm_outputs,
        **(taps or {}),
    }
    found = {tap: value for tap, value in values.items() if value is not None}
    return NotedView(output, found, **({"owner": "teacher"} | limits))


def given_step(term, *, teacher=None, student=None, others=(), **attributes):
    """What a term sees of given numbers.

    ``teacher`` and ``student`` are outputs, or what :func:`given_view` takes; ``others`` are views
    that the teacher gives one by one when asked for training mode, weight noise or other images;
    ``attributes`` are the step's own.
    """
    reader = type(term).__name__
    answer, given = (
        network if isinstance(network, dict) else {"output": network}
        for network in (teacher, student)
    )
    seen = given_view(**answer, allowed=(Output(), *term.teacher_taps), reader=reader)
    replies = iter(others)
    seen.on = seen.under_weight_noise = lambda _: next(replies)
    if others:
        seen.in_training_mode = others[0]
    asked = given_view(**given, owner="student", allowed=term.student_taps, reader=reader)
    asked.on = lambda _: asked
    return SimpleNamespace(teacher=seen, student=asked, **attributes)
