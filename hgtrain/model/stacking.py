"""Stacks in a row: what of each goes into the next, and the strides they all have.

Re-injection is that of Newell, Yang and Deng 2016 (arXiv:1603.06937), section 3.2.
"""

from collections.abc import Callable, Sequence

from keras import KerasTensor, layers

OutputsOf = Callable[[KerasTensor, int], Sequence[KerasTensor]]
"""(features of a stack, stack) -> the outputs that a head lays on them, `(B, h, w, any)` each."""


def no_outputs(features: KerasTensor, stack: int) -> Sequence[KerasTensor]:
    """Return the outputs of a backbone without a head: none."""
    return ()


def make_stacks(
    x: KerasTensor,
    stacks: int,
    make_stack: Callable[[KerasTensor, str], KerasTensor],
    outputs_of: OutputsOf | None,
) -> list[KerasTensor]:
    """Return the features of every stack, first to last.

    Args:
        x: What the first stack sees, `(B, h, w, C)`.
        stacks: How many.
        make_stack: Gives the features of a stack of its input and the prefix of its layers' names.
        outputs_of: Where it is given, a stack's features and outputs are added to its input and
            make the next one's; None: the features alone are the next one's input.
    """
    features: list[KerasTensor] = []
    for stack in range(stacks):
        if features and outputs_of is None:
            x = features[-1]
        elif features and outputs_of is not None:
            outputs = outputs_of(features[-1], stack - 1)
            x = reinjected(x, features[-1], outputs, prefix=f"reinject{stack - 1}")
        features.append(make_stack(x, f"stack{stack}"))
    return features


def reinjected(
    x: KerasTensor, features: KerasTensor, outputs: Sequence[KerasTensor], prefix: str
) -> KerasTensor:
    """Return `x` + conv(`features`) + conv(`outputs`), both linear and 1x1: the next stack's input.

    Args:
        x: What the stack saw, `(B, h, w, C)`.
        features: What it made of that, `(B, h, w, any)`.
        outputs: What a head makes of its features, `(B, h, w, any)` each; they are taken together.
            Without any there is no second convolution.
        prefix: Of the layers' names.
    """
    filters = x.shape[-1]
    parts = [x, layers.Conv2D(filters, 1, name=f"{prefix}_features")(features)]
    if outputs:
        maps = outputs[0]
        if len(outputs) > 1:
            maps = layers.Concatenate(name=f"{prefix}_outputs")(outputs)
        parts.append(layers.Conv2D(filters, 1, name=f"{prefix}_maps")(maps))
    return layers.Add(name=f"{prefix}_add")(parts)


def levels_between(stem_stride: int, output_stride: int, max_stride: int) -> tuple[int, int]:
    """Return how many steps down and up lie between strides.

    Raises:
        ValueError: They are not powers of two or not in the order stem, output, maximum.
    """
    for name, stride in (
        ("stem_stride", stem_stride),
        ("output_stride", output_stride),
        ("max_stride", max_stride),
    ):
        if stride < 1 or stride & (stride - 1):
            raise ValueError(f"{name} must be a power of two, got {stride}")
    if not stem_stride <= output_stride <= max_stride:
        raise ValueError(
            f"strides must be stem <= output <= max, got {stem_stride}, {output_stride}, "
            f"{max_stride}"
        )
    # Powers of two: the difference of the exponents is the number of halvings between two strides.
    halvings = max_stride.bit_length()
    return halvings - stem_stride.bit_length(), halvings - output_stride.bit_length()


def check_sides(x: KerasTensor, multiple: int) -> None:
    """Raise ValueError unless the sides of images `(B, H, W, C)`, where known, are multiples."""
    for side in x.shape[1:3]:
        if side is not None and side % multiple:
            raise ValueError(
                f"the image is {x.shape[1]} x {x.shape[2]}, its sides must be multiples of "
                f"{multiple}"
            )
