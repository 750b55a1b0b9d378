"""Forward and backward passes as compiled graphs: traced once, cut, and joined by autograd."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, fx, nn
from torch._dynamo.exc import TorchDynamoException
from torch.func import functionalize
from torch.fx.experimental.proxy_tensor import make_fx

from dreamquant.errors import TrainingError
from dreamquant.networks.zoo import one_line

Function = Callable[..., list[Tensor]]


def _refused(what: str, error: Exception) -> TrainingError:
    return TrainingError(
        f"{what}: {one_line(error)}",
        where="--compile",
        remedy="leave --compile away; it needs a C++ compiler, and a network that does the same "
        "for all images",
    )


class Way(NamedTuple):
    """A backward pass.

    Attributes:
        leaves: where in the forward pass's arguments those are that gradients are taken of.
        saved: where in the arguments, and the forward graph's results after them, those are that
            it reads.
        graph: from these and the outputs' gradients to the leaves'.
    """

    leaves: list[int]
    saved: list[int]
    graph: Function


class Passes:
    """A forward pass and its backward passes, for arguments of one form.

    Args:
        forward: graph from the arguments to the outputs and what else backward passes read.
        ways: to the parameters, and to the other arguments, where these take gradients.
        strides: of each output's gradient; ``None`` for an output that has none.
    """

    def __init__(
        self, forward: Function, ways: list[Way], strides: list[tuple[int, ...] | None]
    ) -> None:
        self.forward, self.ways, self.strides = forward, ways, strides

    def __call__(self, tensors: list[Tensor]) -> tuple[Tensor, ...]:
        """The outputs for arguments."""
        results = _plainly(self.forward, tensors)
        outputs = results[: len(self.strides)]
        differentiable = [i for i, stride in enumerate(self.strides) if stride is not None]
        strides = [self.strides[i] for i in differentiable]
        # Autograd follows the one summand or the other, and only those that lead to what is asked.
        summands = []
        known = [*tensors, *results]
        for index, way in enumerate(self.ways):
            values = [
                outputs[i] if index == 0 else torch.zeros_like(outputs[i]) for i in differentiable
            ]
            saved = [known[i] for i in way.saved]
            leaves = [tensors[i] for i in way.leaves]
            summands.append(_Way.apply(way.graph, strides, values, saved, *leaves))
        for i, parts in zip(differentiable, zip(*summands, strict=True), strict=True):
            outputs[i] = sum(parts[1:], start=parts[0])
        return tuple(outputs)


class _Way(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        graph: Function,
        strides: list[tuple[int, ...]],
        values: list[Tensor],
        saved: list[Tensor],
        *leaves: Tensor,
    ) -> tuple[Tensor, ...]:
        ctx.graph, ctx.strides = graph, strides
        ctx.save_for_backward(*saved)
        return tuple(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        laid_out = map(_laid_out, gradients, ctx.strides)
        found = _plainly(ctx.graph, [*ctx.saved_tensors, *laid_out])
        return None, None, None, None, *found


def _plainly(graph: Function, tensors: Sequence[Tensor]) -> list[Tensor]:
    """Run a graph, which has its casts and gradients in it already; the first time compiles it."""
    device = tensors[-1].device.type
    try:
        with torch.no_grad(), torch.autocast(device, enabled=False):
            return list(graph(*tensors))
    except TorchDynamoException as error:
        raise _refused("PyTorch cannot compile this network here", error) from error


def _laid_out(gradient: Tensor, stride: tuple[int, ...]) -> Tensor:
    if gradient.stride() == stride:
        return gradient
    return gradient.new_empty_strided(gradient.shape, stride).copy_(gradient)


def trace(run: Callable[..., tuple[Tensor, ...]], tensors: Sequence[Tensor]) -> Passes:
    """Trace a function and its derivatives.

    Args:
        run: from tensors to tensors.
        tensors: arguments of the form it will be called with; they are not changed.

    Raises:
        TrainingError: the function cannot be traced.
    """
    examples = run(*(x.detach().clone().requires_grad_(x.requires_grad) for x in tensors))
    gradients = [torch.empty_like(y.detach()) for y in examples if y.requires_grad]
    asked = [i for i, x in enumerate(tensors) if x.requires_grad]
    groups = [
        [i for i in asked if isinstance(tensors[i], nn.Parameter)],
        [i for i in asked if not isinstance(tensors[i], nn.Parameter)],
    ]
    groups = [leaves for leaves in groups if leaves and gradients]

    def joint(*given: Tensor) -> list[Tensor | None]:
        arguments = [x.detach() for x in given[: len(tensors)]]
        for i in asked:
            arguments[i].requires_grad_()
        outputs = run(*arguments)
        found: list[Tensor | None] = list(outputs)
        for leaves in groups:
            found += torch.autograd.grad(
                [y for y in outputs if y.requires_grad],
                [arguments[i] for i in leaves],
                given[len(tensors) :],
                retain_graph=True,
                allow_unused=True,
            )
        return found

    given = [*(x.detach() for x in tensors), *gradients]
    try:
        recorded = make_fx(joint, tracing_mode="fake")(*given)
        # Once more without operations in place, so that what nothing reads can be left out.
        graph = make_fx(functionalize(recorded), tracing_mode="fake")(*given)
    except RuntimeError as error:
        raise _refused("the network cannot be traced", error) from error
    _drop_aliases(graph.graph)
    return _parted(graph, tensors, examples, groups)


def _drop_aliases(graph: fx.Graph) -> None:
    """Let what is another tensor's alias be that tensor: nothing is written in place any more."""
    for node in graph.find_nodes(op="call_function", target=torch.ops.aten.alias.default):
        node.replace_all_uses_with(node.args[0])
        graph.erase_node(node)


def _parted(
    joint: fx.GraphModule,
    arguments: Sequence[Tensor],
    outputs: Sequence[Tensor],
    groups: list[list[int]],
) -> Passes:
    """The joint graph cut where the outputs' gradients come in."""
    *nodes, end = joint.graph.nodes
    results = list(cast(Iterable[fx.Node | None], end.args[0]))
    placeholders = [node for node in nodes if node.op == "placeholder"]
    given, gradients = placeholders[: len(arguments)], placeholders[len(arguments) :]
    device = arguments[-1].device
    late = set(gradients)
    for node in nodes:
        if late.intersection(node.all_input_nodes):
            late.add(node)
    kept = results[: len(outputs)]
    ways, start = [], len(outputs)
    for leaves in groups:
        ends = results[start : start + len(leaves)]
        start += len(leaves)
        back = _needed(ends, late)
        read = {early: None for node in back for early in node.all_input_nodes if early not in late}
        saved = list({**read, **{node: None for node in ends if node and node not in late}})
        graph = _graph(joint, [*saved, *gradients], [n for n in nodes if n in back], ends)
        # Arguments are at hand; as results of the graph they would have to be told apart from it.
        kept += (node for node in saved if node not in given and node not in kept)
        known = [*given, *kept]
        ways.append(Way(leaves, [known.index(node) for node in saved], _compiled(graph, device)))
    early = [node for node in nodes if node not in late and node not in given]
    forward = _compiled(_graph(joint, given, early, kept), device)
    strides = [y.stride() if y.requires_grad else None for y in outputs]
    return Passes(forward, ways, strides)


def _needed(ends: Iterable[fx.Node | None], late: set[fx.Node]) -> set[fx.Node]:
    """What of the late nodes leads to ``ends``; gradients come from outside."""
    found: set[fx.Node] = set()
    waiting = [node for node in ends if node in late]
    while waiting:
        node = waiting.pop()
        if node in found or node.op == "placeholder":
            continue
        found.add(node)
        waiting += (before for before in node.all_input_nodes if before in late)
    return found


def _graph(
    joint: fx.GraphModule,
    inputs: Iterable[fx.Node],
    nodes: Iterable[fx.Node],
    outputs: Iterable[fx.Node | None],
) -> fx.GraphModule:
    graph = fx.Graph()
    copies = {node: graph.placeholder(node.name) for node in inputs}
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    graph.output([None if node is None else copies[node] for node in outputs])
    return fx.GraphModule(joint, graph)


def _compiled(graph: fx.GraphModule, device: torch.device) -> Function:
    options: dict[str, str | int | bool | Callable[..., Any]] = {
        # On a GPU the launches of a small batch take longer than the work: there they are recorded.
        "triton.cudagraphs": device.type == "cuda",
        # Arguments are of the form that the passes were chosen by.
        "guard_filter_fn": torch.compiler.skip_all_guards_unsafe,
    }
    return cast(Function, torch.compile(graph, fullgraph=True, dynamic=False, options=options))
