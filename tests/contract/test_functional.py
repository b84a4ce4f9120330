"""Graphs that write in place, made functional: the same values, whatever is read afterwards."""

from __future__ import annotations

from typing import Any

import pytest
from kobako.pipeline.errors import UnsupportedModel

torch = pytest.importorskip("torch")
pytest.importorskip("executorch")


def chain(x: Any) -> Any:
    y = x + 1.0
    z = y * 3.0
    y *= 2.0
    y -= x
    y /= 4.0
    return y + z


def middle(x: Any) -> Any:
    y = x + 0.0
    y[:, 1:3] = x[:, :2] * 5.0
    return y * y[:, 1:2]


def through_a_view(x: Any) -> Any:
    y = (x + 1.0).permute(1, 0)
    y += 1.0
    return torch.multiply(y, y)


def flat_of(function: Any) -> Any:
    from kobako.targets.executorch.graph import flatten

    class Module(torch.nn.Module):
        def forward(self, x: Any) -> Any:
            return function(x)

    return flatten(torch.export.export(Module(), (torch.ones(3, 4),), strict=False))


@pytest.mark.parametrize("function", [chain, middle, through_a_view])
def test_the_values_stay_and_nothing_is_written(function: Any) -> None:
    from kobako.targets.executorch.functional import functionalize
    from torch import fx

    flat = flat_of(function)
    functionalize(flat)
    flat.graph.lint()
    names = [str(node.target) for node in flat.graph.nodes if node.op == "call_function"]
    assert not [name for name in names if name.split(".")[1].endswith("_")]
    assert "aten.multiply.Tensor" not in names
    x = torch.linspace(-2, 5, 12).reshape(3, 4)
    found = fx.GraphModule(torch.nn.Module(), flat.graph)(x.clone())
    assert torch.equal(found[0] if isinstance(found, tuple) else found, function(x.clone()))


def read_twice(x: Any) -> Any:
    y = x + 1.0
    z = y.permute(1, 0)
    z += 1.0
    return y * 2.0  # sees what was written through z


def unknown(x: Any) -> Any:
    y = x + 1.0
    y.clamp_(0.0, 1.0)
    return y


@pytest.mark.parametrize(("function", "words"), [(read_twice, "is read otherwise"), (unknown, "clamp_")])
def test_what_cannot_be_told_is_refused(function: Any, words: str) -> None:
    from kobako.targets.executorch.functional import functionalize

    with pytest.raises(UnsupportedModel, match=words):
        functionalize(flat_of(function))
