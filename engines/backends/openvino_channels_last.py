"""What keeps a convolutional network channels-last in OpenVINO on a CPU.

Convolutions there want the channels of a pixel side by side. Two things put them into planes, which costs a
copy before and one after: group normalisation, which is computed in planes; and an elementwise operation with
one value a channel, (B, C, 1, 1), that comes from a matrix product, since it takes that operand's layout.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from openvino import opset13 as opset  # type: ignore[import-untyped]

_ELEMENTWISE = {"Add", "Divide", "Multiply", "Subtract"}
_PIXELS = np.array([2, 3])
_EXACT = 3
"""So many of the last normalisations stay as they are: in bfloat16 the rounding of their moments would reach
the result, while that of earlier ones is averaged out by the convolutions that follow."""


def keep_channels_last(model: Any) -> None:
    """Rewrite an `openvino.Model` in place; what it computes stays the same.

    Args:
        model: whose shapes are known but for the batch's. Operations of other shapes are left as they are.
    """
    nodes = model.get_ordered_ops()
    for node in nodes:
        if node.get_type_name() in _ELEMENTWISE:
            for index in _channel_operands(node):
                node.input(index).replace_source_output(_convolved(node.input_value(index)))
    normalisations = [node for node in nodes if node.get_type_name() == "GroupNormalization"]
    for node in normalisations[:-_EXACT]:
        if sizes := _sizes(node.output(0)):
            node.output(0).replace(_pooled(node, *sizes))
    model.validate_nodes_and_infer_types()


def _channel_operands(node: Any) -> Iterator[int]:
    """Yield which inputs have one value for each row and channel where the result has one for each pixel."""
    sizes = _sizes(node.output(0))
    if sizes is None or sizes[1:] == (1, 1):
        return
    for index in range(2):
        value = node.input_value(index)
        # The same values for all rows are constants, which are stored as they are wanted.
        if _sizes(value) == (sizes[0], 1, 1) and value.get_partial_shape()[0].is_dynamic:
            yield index


def _sizes(value: Any) -> tuple[int, int, int] | None:
    """Return C, H and W of (B, C, H, W); None for other values and where they are not known."""
    shape = value.get_partial_shape()
    if shape.rank.is_dynamic or len(shape) != 4 or any(size.is_dynamic for size in list(shape)[1:]):
        return None
    channels, height, width = (size.get_length() for size in list(shape)[1:])
    return channels, height, width


def _convolved(value: Any) -> Any:
    """Return (B, C, 1, 1) as it is, but from a convolution: channels-last."""
    channels = value.get_partial_shape()[1].get_length()
    ones = opset.constant(np.ones((channels, 1, 1, 1, 1), np.float32))
    return opset.group_convolution(value, ones, [1, 1], [0, 0], [0, 0], [1, 1]).output(0)


def _pooled(node: Any, channels: int, height: int, width: int) -> Any:
    """Return group normalisation as pooling over pixels and pointwise convolutions over channels.

    y = gamma (x - mean) / sqrt(variance + eps) + beta, both moments of a group of channels (Wu and He 2018,
    arXiv 1803.08494, Equations 1 and 2). The variance is that of the differences, not the difference of two
    large sums.
    """
    x, gamma, beta = (node.input_value(index) for index in range(3))
    groups, eps = (node.get_attributes()[name] for name in ("num_groups", "epsilon"))
    member = np.kron(np.eye(groups), np.ones((1, channels // groups)))
    mean_of_group, to_channels = member * groups / channels, member.T

    mean = _pointwise(_pointwise(opset.reduce_mean(x, _PIXELS, True), mean_of_group), to_channels)
    centred = opset.subtract(x, mean)
    norm = opset.reduce_l2(centred, _PIXELS, True)
    variance = _pointwise(opset.multiply(norm, norm), mean_of_group / (height * width))
    deviation = opset.sqrt(opset.add(variance, np.float32(eps)))
    normal = opset.divide(centred, _pointwise(deviation, to_channels))
    per_channel = np.array([1, channels, 1, 1])
    scaled = opset.multiply(normal, opset.reshape(gamma, per_channel, False))
    return opset.add(scaled, opset.reshape(beta, per_channel, False)).output(0)


def _pointwise(x: Any, weights: npt.NDArray[np.floating]) -> Any:
    """Return the 1x1 convolution of (B, C, 1, 1) with (out, C)."""
    kernel = opset.constant(weights[:, :, None, None].astype(np.float32))
    return opset.convolution(x, kernel, [1, 1], [0, 0], [0, 0], [1, 1])
