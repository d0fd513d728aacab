"""A step of one's own: self-attention in place of the depthwise convolution in the last stage.

roadmap show attention --plugin docs/examples/attention.py
roadmap run --steps layer-scale,attention --plugin docs/examples/attention.py
"""

from dataclasses import replace

import roadmap
from roadmap import Layer, mixer

HEAD = 32  # channels of a head


def parameters(layer: Layer) -> int:
    """Queries, keys and values, and the projection behind them."""
    biases = 3 * layer.inputs + layer.outputs if layer.bias else 0
    return layer.inputs * (3 * layer.inputs + layer.outputs) + biases


def macs(layer: Layer, before: int, after: int) -> int:
    """The linear layers, and the two products of attention: every pixel with every other, twice."""
    pixels = after**2
    return pixels * layer.inputs * (3 * layer.inputs + layer.outputs) + 2 * pixels**2 * layer.inputs


@mixer("attention", parameters=parameters, macs=macs)
def attention(layer: Layer):
    """Multi-head self-attention over the pixels, which are pooled first where the layer has a stride."""
    from torch import nn
    from torch.nn import functional as F

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.heads = layer.inputs // HEAD if layer.inputs % HEAD == 0 else 1
            self.qkv = nn.Linear(layer.inputs, 3 * layer.inputs, bias=layer.bias)
            self.project = nn.Linear(layer.inputs, layer.outputs, bias=layer.bias)

        def forward(self, x):
            if layer.stride > 1:
                x = F.avg_pool2d(x, layer.stride, ceil_mode=True)
            count, channels, height, width = x.shape
            pixels = x.flatten(2).transpose(1, 2)
            shape = (count, height * width, 3, self.heads, channels // self.heads)
            queries, keys, values = self.qkv(pixels).view(shape).permute(2, 0, 3, 1, 4)
            weights = (queries @ keys.transpose(2, 3) * queries.shape[-1] ** -0.5).softmax(3)
            mixed = self.project((weights @ values).transpose(1, 2).flatten(2))
            return mixed.transpose(1, 2).unflatten(2, (height, width))

    return Attention()


@roadmap.step("attention", group="Mine", title="attention, last stage")
def attention_in_the_last_stage(design: roadmap.Design) -> roadmap.Design:
    """The spatial convolution of the last stage's blocks becomes self-attention."""
    *earlier, last = design.blocks
    convs = tuple(replace(conv, mixer="attention") if conv.is_spatial else conv for conv in last.convs)
    return replace(design, block=(*earlier, replace(last, convs=convs)))
