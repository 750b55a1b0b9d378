"""The task of a network, recognised from its output or given by the user."""

from __future__ import annotations

from torch import Tensor

from dreamquant.errors import NetworkError
from dreamquant.networks.choices import Kind
from dreamquant.networks.outputs import names_of, require_per_image


def task_in(
    output: object, images: int, *, sigmoid: bool, plane: tuple[int, ...], classes: int | None
) -> Kind:
    """Recognise the task from an output.

    Args:
        output: output for a batch.
        images: number of images of the batch.
        sigmoid: whether the output is the result of a sigmoid.
        plane: height and width of the input; shorter if the input is not an image.
        classes: number of classes that the origin or the user gives.

    Raises:
        NetworkError: the first dimension is not the batch, or there are no tensors.
    """
    require_per_image(output, images)
    if not isinstance(output, Tensor):
        return "regression"
    if output.dim() <= 2:
        columns = 1 if output.dim() == 1 else output.shape[1]
        return "multi-label" if sigmoid and columns > 1 else "classification"
    is_map = output.shape[2:] == plane and classes is not None
    return "segmentation" if is_map and output.shape[1] == classes else "regression"


def require_task(task: Kind, output: object) -> None:
    """Refuse a task that does not fit an output.

    Raises:
        NetworkError: the shape of the output does not fit the task.
    """
    needed = {"classification": 2, "multi-label": 2, "segmentation": 4}.get(task)
    if needed is None:
        return
    fits = isinstance(output, Tensor) and output.dim() == needed
    if task == "classification" and isinstance(output, Tensor) and output.dim() == 1:
        return
    if not fits or (needed == 4 and output.shape[1] < 2):  # type: ignore[attr-defined]
        wanted = "(images, classes)" if needed == 2 else "(images, classes, height, width)"
        raise NetworkError(
            f"{task} needs one output {wanted}, and the network returns {described(output)}",
            where="--task",
            remedy="give --task regression, which takes any outputs, or wrap the network",
        )


def described(output: object) -> str:
    """A description of an output."""
    if isinstance(output, Tensor):
        return f"a tensor of shape {tuple(output.shape)}"
    return f"{type(output).__name__} of {len(names_of(output))} tensors"


def output_names(task: Kind, output: object) -> tuple[str, ...]:
    """Names of the outputs in exported files."""
    if isinstance(output, Tensor):
        return ("output" if task == "regression" else "logits",)
    return names_of(output)
