"""A method of one's own: use it with ``--method examples/my_method.py:mine``."""

from dreamquant import Method
from dreamquant.methods.method import Paper
from dreamquant.methods.quick import QUICK, QUICK_IMAGENET
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.distillation import DifferenceEntropy
from dreamquant.terms.statistics import BatchNormStatistics

mine = Method(
    name="mine",
    summary="cross-entropy and statistics for the generator, logit matching for the student",
    paper=Paper("An Example", "nowhere, 2026", "Nobody", confirmed="nothing", ours="all of it"),
    generator_terms=[TeacherCrossEntropy(), 0.1 * BatchNormStatistics()],
    student_terms=[DifferenceEntropy(temperature=20)],
    presets={"quick": QUICK, "quick-imagenet": QUICK_IMAGENET},
)
