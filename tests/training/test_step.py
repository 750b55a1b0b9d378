"""One iteration, compared with a simple eager loop, and the state that it may change."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dreamquant.errors import MethodError, TrainingError
from dreamquant.networks.norm_inputs import BatchNormInputs
from dreamquant.terms.classes import TeacherCrossEntropy
from dreamquant.terms.contract import Term, Weighted, weighted
from dreamquant.training.step import Step
from tiny_runs import (
    players_of,
    short_method,
    step_on,
    tiny_network,
    tiny_run,
    training_of,
    with_images,
)

PLAIN_METHODS = ["gdfq", "adadfq"]
# A generator that never asks the student; one that does; one with pairs and mixed images; terms
# that read the teacher in training mode, on other images and under noise.
KINDS = ["gdfq", "adadfq", "acq", "gdfq+ris+agm"]
PRESETS = ["paper", "quick"]
PLACEMENTS = ["relu-output", "layer-input"]
CONVS, NORMS, LINEAR = {"0": 1, "3": 2}, ["1", "4"], "8"


# ------------------------------------------------------------- the plain eager loop


def grid_of(low, high, qmin, qmax):
    low, high = torch.clamp(low, max=0), torch.clamp(high, min=0)
    scale = (high - low) / (qmax - qmin)
    zero_point = torch.clamp(torch.round(qmin - low / scale), qmin, qmax)
    return scale, zero_point


def on_grid(x, scale, zero_point, qmin, qmax):
    """Rounded straight through; clamped values pass no gradient, but the scale's."""
    real = x / scale + zero_point
    code = torch.clamp(torch.round(real), qmin, qmax)
    inside = code == torch.round(real)
    code = torch.where(inside, (code - real).detach() + real, code.detach())
    return (code - zero_point) * scale


def least_error(values, low, high, qmin, qmax):
    def error(pair):
        return ((on_grid(values, *pair, qmin, qmax) - values) ** 2).sum()

    shares = [k / 20 for k in range(4, 21)]
    return min((grid_of(s * low, s * high, qmin, qmax) for s in shares), key=error)


class PlainWeight:
    """Per output channel: min-max, straight-through by detaching, or a scale that is trained."""

    def __init__(self, weight, bits, learned):
        self.ends = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        self.learned = learned
        self.growth = torch.zeros(len(weight)).requires_grad_(learned)
        ends = self.ends
        pairs = [least_error(c, c.min(), c.max(), *ends) for c in weight] if learned else []
        self.starts = [scale for scale, _ in pairs]
        self.zero_points = [zero_point for _, zero_point in pairs]

    def __call__(self, weight):
        if not self.learned:
            return weight + (self.covered(weight.detach()) - weight.detach())
        scales = torch.stack(self.starts) * torch.exp(self.growth)
        rows = zip(weight, scales, self.zero_points, strict=True)
        return torch.stack([on_grid(*row, *self.ends) for row in rows])

    def covered(self, latent):
        grids = [grid_of(channel.min(), channel.max(), *self.ends) for channel in latent]
        return torch.stack(
            [on_grid(row, *grid, *self.ends) for row, grid in zip(latent, grids, strict=True)]
        )


class PlainActivation:
    """One quantizer: moving range, and a scale that is trained where ``learned``."""

    def __init__(self, bits, learned):
        self.qmax, self.learned = 2**bits - 1, learned
        self.batches = []
        self.start, self.zero_point = torch.ones(()), torch.zeros(())
        self.growth = torch.zeros(()).requires_grad_(learned)

    @property
    def scale(self):
        return self.start * torch.exp(self.growth)

    def observe(self, x):
        self.batches.append((x.min().item(), x.max().item()))
        powers = [0.9**age for age in reversed(range(len(self.batches)))]
        low, high = (
            sum(p * batch[end] for p, batch in zip(powers, self.batches, strict=True)) / sum(powers)
            for end in (0, 1)
        )
        ends = torch.tensor(low), torch.tensor(high), 0, self.qmax
        self.start, self.zero_point = least_error(x, *ends) if self.learned else grid_of(*ends)
        self.growth.data.zero_()

    def __call__(self, x):
        if self.learned:
            return on_grid(x, self.scale, self.zero_point, 0, self.qmax)
        return x + (on_grid(x, self.scale, self.zero_point, 0, self.qmax) - x).detach()


class PlainRun:
    """GDFQ and AdaDFQ as a loop of forwards, backwards and updates, nothing shared or cached."""

    def __init__(self, run, name, bits, placement):
        self.name, self.bits, self.placement = name, bits, placement
        self.source, self.training = run.method.images, training_of(run.method)
        self.tensors = {k: v.clone() for k, v in run.teacher.state_dict().items()}
        self.generator = copy.deepcopy(run.generator)
        self.random = torch.Generator().manual_seed(1)
        trained = [name for name, _ in run.teacher.named_parameters()]
        self.student = {name: self.tensors[name].clone().requires_grad_() for name in trained}
        learned = run.method.scheme.get("ranges") == "learned"
        count = 3 if placement == "layer-input" else 2
        self.activations = [PlainActivation(bits, learned) for _ in range(count)]
        self.weights = {
            name: PlainWeight(self.tensors[f"{name}.weight"], bits, learned)
            for name in (*CONVS, LINEAR)
        }
        quantizers = [*self.activations, *self.weights.values()]
        growths = [quantizer.growth for quantizer in quantizers if learned]
        self.student_leaves = [*self.student.values(), *growths]
        self.generator_leaves = list(self.generator.parameters())
        self.velocity = [None] * len(self.student_leaves)
        self.moments = [(0.0, 0.0)] * len(self.generator_leaves)
        self.student_moments = [(0.0, 0.0)] * len(self.student_leaves)
        self.iteration = 0

    def teacher_answer(self, images):
        keep = lambda _, x: x  # noqa: E731
        return self._forward(images, self.tensors, keep, keep, keep)

    def student_answer(self, images, observing):
        def activation(i, x):
            if observing:
                self.activations[i].observe(x.detach())
            return self.activations[i](x)

        tensors = self.tensors | self.student
        keep = lambda i, x: x  # noqa: E731
        at_input = activation if self.placement == "layer-input" else keep
        at_relu = activation if self.placement == "relu-output" else keep
        weight = lambda name, w: self.weights[name](w)  # noqa: E731
        return self._forward(images, tensors, weight, at_input, at_relu)[0]

    def _forward(self, x, tensors, weight, at_input, at_relu):
        statistics = []
        for i, (conv, norm) in enumerate(zip(CONVS, NORMS, strict=True)):
            kernel = weight(conv, tensors[f"{conv}.weight"])
            bias = tensors.get(f"{conv}.bias")
            x = F.conv2d(at_input(i, x), kernel, bias, stride=CONVS[conv], padding=1)
            mean = x.mean((0, 2, 3))
            var = ((x - mean[:, None, None]) ** 2).mean((0, 2, 3))
            stored = tensors[f"{norm}.running_mean"], tensors[f"{norm}.running_var"]
            statistics.append((mean, var, *stored))
            x = (x - stored[0][:, None, None]) / torch.sqrt(stored[1][:, None, None] + 1e-5)
            x = x * tensors[f"{norm}.weight"][:, None, None]
            x = x + tensors[f"{norm}.bias"][:, None, None]
            x = at_relu(i, torch.clamp(x, min=0))
        x = at_input(2, x.mean((2, 3)))
        last = weight(LINEAR, tensors[f"{LINEAR}.weight"])
        logits = x @ last.T + tensors[f"{LINEAR}.bias"]
        return logits, statistics

    def generator_losses(self, z_p, z_q, statistics, labels):
        gaps = [((m - sm) ** 2).mean() + ((v - sv) ** 2).mean() for m, v, sm, sv in statistics]
        match = sum(gaps) / len(gaps)
        if self.name == "gdfq":
            ce = F.cross_entropy(z_p, labels)
            return {"TeacherCrossEntropy": ce, "BatchNormStatistics": match}, ce + 0.1 * match
        p = torch.softmax(z_p - z_q, 1)
        h = -(p * torch.log(p)).sum(1)
        h = (h - h.min()) / (np.log(z_p.shape[1]) - h.min())
        zero = torch.zeros_like(h)
        band = torch.maximum(0.1 - h, zero).mean() + torch.maximum(h - 0.8, zero).mean()
        apart, together = F.cross_entropy(z_p - z_q, labels), F.cross_entropy(z_p + z_q, labels)
        balance = 0.2 * apart + 0.1 * together
        losses = {"Band": band, "Balance": balance, "BatchNormStatistics": match}
        return losses, band + balance + match

    def student_losses(self, z_p, z_q, labels):
        if self.name == "gdfq":
            ce = F.cross_entropy(z_q, labels)
            p, q = torch.softmax(z_p / 20, 1), torch.softmax(z_q / 20, 1)
            kl = 400 * (p * (torch.log(p) - torch.log(q))).mean()
            return {"StudentCrossEntropy": ce, "KnowledgeDistillation": kl}, ce + kl
        p = torch.softmax((z_p - z_q) / 20, 1)
        loss = 400 * (p * torch.log(p)).sum(1).mean()
        return {"DifferenceEntropy": loss}, loss

    def step(self):
        k, source, training = self.iteration, self.source, self.training
        labels = torch.randint(5, (source.batch,), generator=self.random)
        noise = torch.randn(source.batch, 100, generator=self.random)
        images = self.generator(noise, labels)
        z_p, statistics = self.teacher_answer(images)
        z_q = self.student_answer(images, observing=k < source.observe)
        named, loss = self.generator_losses(z_p, z_q, statistics, labels)
        losses = {f"generator/{name}": value.item() for name, value in named.items()}
        loss.backward()
        generator_gradients = [leaf.grad.clone() for leaf in self.generator_leaves]
        student_gradients = None
        if k >= source.alone:
            self._forget_gradients()
            z_q = self.student_answer(images.detach(), observing=False)
            named, loss = self.student_losses(z_p.detach(), z_q, labels)
            losses |= {f"student/{name}": value.item() for name, value in named.items()}
            loss.backward()
            student_gradients = [leaf.grad.clone() for leaf in self.student_leaves]
        self._forget_gradients()
        t = k + 1
        rate = source.lr * source.decay.factor(k, source.alone + training.iterations)
        self._adam(self.generator_leaves, generator_gradients, self.moments, 0.5, t, rate)
        if student_gradients is not None:
            taught = k - source.alone
            rate = training.lr * training.decay.factor(taught, training.iterations)
            self._teach_student(student_gradients, rate)
        self.iteration += 1
        return losses

    def _forget_gradients(self):
        for leaf in [*self.student_leaves, *self.generator_leaves]:
            leaf.grad = None

    def _adam(self, leaves, gradients, moments, beta, t, rate):
        for i, (leaf, g) in enumerate(zip(leaves, gradients, strict=True)):
            m, v = moments[i]
            m, v = beta * m + (1 - beta) * g, 0.999 * v + 0.001 * g**2
            moments[i] = m, v
            leaf.data -= rate * (m / (1 - beta**t)) / (torch.sqrt(v / (1 - 0.999**t)) + 1e-8)

    def _teach_student(self, gradients, rate):
        if self.training.clip is not None:
            norm = torch.sqrt(sum((g**2).sum() for g in gradients))
            assert norm > self.training.clip, "the clipping is to be seen at work"
            gradients = [g * self.training.clip / (norm + 1e-6) for g in gradients]
        if self.training.optimizer == "adam":
            t = self.iteration - self.source.alone + 1
            self._adam(self.student_leaves, gradients, self.student_moments, 0.9, t, rate)
        else:
            self._sgd(gradients, rate)

    def _sgd(self, gradients, rate):
        for i, (leaf, g) in enumerate(zip(self.student_leaves, gradients, strict=True)):
            g = g + 1e-4 * leaf.data
            past = self.velocity[i]
            self.velocity[i] = g if past is None else 0.9 * past + g
            leaf.data -= rate * (g + 0.9 * self.velocity[i])


# ------------------------------------------------------------------ equal to it


def assert_equal(run, plain):
    close = {"rtol": 1e-9, "atol": 1e-9}
    for ours, theirs in zip(run.generator_parameters, plain.generator_leaves, strict=True):
        torch.testing.assert_close(ours, theirs, **close)
    student = dict(run.student.network.named_parameters())
    for name, theirs in plain.student.items():
        latent = name.replace("weight", "parametrizations.weight.original")
        ours = student[latent] if latent in student else student[name]
        torch.testing.assert_close(ours, theirs, **close)
    quantizers = run.student.activation_quantizers().values()
    for ours, theirs in zip(quantizers, plain.activations, strict=True):
        torch.testing.assert_close(ours.scale, theirs.scale, **close)
        assert ours.zero_point == theirs.zero_point
    for name, (latent, ours) in run.student.quantized_weights().items():
        theirs = plain.weights[name](plain.student[f"{name}.weight"])
        torch.testing.assert_close(ours(latent), theirs, **close)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("placement", PLACEMENTS)
@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("method", PLAIN_METHODS)
def test_an_iteration_equals_a_plain_eager_loop(method, preset, placement):
    clip = {"clip": 1e-3} if preset == "quick" else {}
    run = tiny_run(short_method(method, preset, observe=1, train=clip), placement=placement)
    plain = PlainRun(run, method, 3, placement)
    # Ranges follow the images in iteration 0 and stand from 1 on; the student learns from 2 on, and
    # the published rates fall at 4.
    for iteration in range(6):
        losses = {name: value.item() for name, value in run.step().items()}
        assert losses == pytest.approx(plain.step(), rel=1e-9, abs=1e-12), iteration
        assert_equal(run, plain)


@pytest.mark.parametrize("method", KINDS)
def test_warm_up_leaves_the_student_as_it_was_but_for_its_ranges(method):
    run = tiny_run(short_method(method))
    before = {name: p.clone() for name, p in run.student.named_parameters()}
    generator = [p.clone() for p in run.generator_parameters]
    losses = run.step()
    assert all(name.startswith("generator/") for name in losses)
    for name, p in run.student.named_parameters():
        assert p.equal(before[name]), name
    quantizers = run.student.activation_quantizers().values()
    assert all(quantizer.scale != 1 for quantizer in quantizers)
    pairs = zip(run.generator_parameters, generator, strict=True)
    assert any(not p.equal(old) for p, old in pairs)


# ----------------------------------------------------- what it touches, and how often


def hooks_of(module):
    return [
        (name, attribute, len(getattr(part, attribute)))
        for name, part in module.named_modules()
        for attribute in vars(part)
        if attribute.endswith("_hooks")
    ]


@pytest.mark.parametrize("method", KINDS)
def test_the_teacher_is_left_as_it_was(method):
    network = tiny_network()
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    hooks = hooks_of(network)
    run = tiny_run(short_method(method), network=network).steps(4)
    assert run.teacher is network
    assert all(tensor.equal(state[name]) for name, tensor in network.state_dict().items())
    assert hooks_of(network) == hooks
    assert not any(module.training for module in network.modules())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())


def test_hooks_leave_the_teacher_when_its_forward_fails():
    network = tiny_network()
    players = players_of(network, teacher_taps=(BatchNormInputs(),))
    hooks = hooks_of(network)
    step = step_on(players, torch.zeros(2, 3, 8, 8))
    with pytest.raises(RuntimeError):
        _ = step.teacher.output
    assert hooks_of(network) == hooks


class Count:
    """Counts a module's forward passes, and the norms' hooks in force during them."""

    def __init__(self, module):
        self.passes = self.hooks = 0
        module.register_forward_pre_hook(self._note)

    def _note(self, module, _):
        self.passes += 1
        parts = [part for part in module.modules() if isinstance(part, nn.BatchNorm2d)]
        self.hooks += sum(len(part._forward_pre_hooks) for part in parts)


@pytest.mark.parametrize(
    ("method", "student_passes"),
    # GDFQ's generator does not ask the student: it only runs to move ranges, or to learn.
    [("adadfq", [1, 1, 1, 1]), ("gdfq", [1, 0, 1, 1])],
)
def test_each_network_runs_once_per_iteration(method, student_passes):
    run = tiny_run(short_method(method, observe=1))
    teacher, student = Count(run.teacher), Count(run.student)
    for iteration, passes in enumerate(student_passes):
        teacher.passes = student.passes = 0
        run.step()
        assert (teacher.passes, student.passes) == (1, passes), iteration


def test_statistics_are_only_taken_where_a_term_asks():
    asked = tiny_run(short_method("gdfq"))
    count = Count(asked.teacher)
    asked.step()
    assert count.hooks == 2
    silent = tiny_run(with_images(short_method("gdfq"), terms=[TeacherCrossEntropy()]))
    count = Count(silent.teacher)
    silent.step()
    assert (count.passes, count.hooks) == (1, 0)


@pytest.mark.parametrize("method", KINDS)
def test_the_generator_leaves_no_gradient_behind_in_the_student(method):
    run = tiny_run(short_method(method))
    for _ in range(2):
        run.step()
        assert all(p.grad is None for p in run.student.parameters())


def test_the_students_gradient_is_of_its_own_loss_alone():
    method = short_method("adadfq", alone=1, train={"clip": None})
    run, twin = (tiny_run(method).steps(1) for _ in range(2))
    run.step()
    batch = twin.images.batch(4)
    step = step_on(twin.bench.players, batch.images.detach(), targets=batch.targets)
    training_of(method).terms[0](step).backward()
    for ours, wanted in zip(run.student_parameters, twin.student_parameters, strict=True):
        torch.testing.assert_close(ours.grad, wanted.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", ["gdfq", "adadfq", "acq"])
def test_a_batch_in_parts_teaches_the_mean_of_what_its_parts_do(method):
    method = short_method(method, alone=1, observe=0, batch=8, train={"clip": None})
    run, twin = (tiny_run(method, micro_batches=2).steps(1) for _ in range(2))
    losses = run.step()
    asked = twin.images.ask(8, twin.bench.rng.asked)
    terms = {"generator": method.images.terms, "student": training_of(method).terms}
    wanted = {"generator": [], "student": []}
    for index in range(2):
        batch = twin.images.make(asked.part(index, 2))
        step = Step(batch, twin.bench.players, twin.bench.rng, student_learns=True)
        for player, loss in wanted.items():
            loss.append(sum(w.weight * w.term(step) for w in weighted(terms[player])))
    for player, loss in wanted.items():
        parameters = f"{player}_parameters"
        whole = sum(w.weight * losses[f"{player}/{w.name}"] for w in weighted(terms[player]))
        torch.testing.assert_close(whole, sum(loss).detach() / 2)
        gradients = torch.autograd.grad(
            sum(loss) / 2, getattr(twin, parameters), retain_graph=True, allow_unused=True
        )
        for ours, theirs in zip(getattr(run, parameters), gradients, strict=True):
            assert (ours.grad is None) == (theirs is None)
            if theirs is not None:
                torch.testing.assert_close(ours.grad, theirs)


@pytest.mark.parametrize(
    ("method", "batch", "parts"),
    [("adadfq", 8, 3), ("adadfq", 8, 16), ("adadfq", 8, 0), ("adadfq", 8, -1), ("acq", 6, 2)],
)
def test_parts_that_are_not_equal_are_refused(method, batch, parts):
    refusal = f"{batch} images cannot be divided into {parts} equal parts"
    with pytest.raises(TrainingError, match=refusal) as e:
        tiny_run(short_method(method, batch=batch), micro_batches=parts)
    assert "--micro-batches" in e.value.where


def test_everything_shared_is_computed_once_and_on_first_use():
    network, student = tiny_network(), nn.Flatten()
    players = players_of(network, student, teacher_taps=(BatchNormInputs(),))
    count = Count(network)
    step = step_on(players, torch.randn(2, 1, 8, 8))
    # What terms see are views of their own, and the forward pass is shared by all of them.
    seen = [step.seen_by(term) for term in (Statistics(), TeacherCrossEntropy())]
    assert count.passes == 0
    assert seen[0].teacher.output is seen[1].teacher.output
    assert seen[0].teacher[BatchNormInputs()] is step.teacher[BatchNormInputs()]
    assert step.student.output is step.student.output
    assert count.passes == 1


class Statistics(Term):
    """A user's own term."""

    teacher_taps = (BatchNormInputs(),)

    def __call__(self, step):
        s = step.teacher[BatchNormInputs()]
        return (s.mean.square() + s.var).sum()


def test_statistics_pass_a_gradient_to_the_images():
    images = torch.randn(2, 1, 8, 8, requires_grad=True)
    step = step_on(players_of(tiny_network(), teacher_taps=Statistics.teacher_taps), images)
    (gradient,) = torch.autograd.grad(Statistics()(step), images)
    assert gradient.abs().sum() > 0


class Likeness(Term):
    """A user's own term, on the images alone."""

    def __call__(self, step):
        return step.images[step.targets >= 0].square().mean()


def test_a_term_may_read_images_and_targets_alone():
    terms = (Weighted(2.0, Likeness()), TeacherCrossEntropy())
    losses = tiny_run(with_images(short_method("gdfq"), terms=terms)).step()
    assert losses["generator/Likeness"].item() == pytest.approx(1, abs=0.01)


def test_a_condition_that_nobody_asked_for_is_refused():
    step = step_on(players_of(tiny_network()), torch.zeros(2, 1, 8, 8))
    with pytest.raises(MethodError, match="reads the condition 'centre'") as e:
        step.condition("centre")
    assert "image source" in e.value.remedy
