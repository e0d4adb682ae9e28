"""The average of the weights: against a loop by hand, in place, and its cost."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from training_core.optimisation.averaging import Ema


def network() -> nn.Sequential:
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4 * 36, 3))
    model[3].bias.requires_grad_(False)
    return model.to(memory_format=torch.channels_last)


def train(model: nn.Module, seed: int) -> None:
    model.train()
    images = torch.randn(4, 1, 8, 8, generator=torch.Generator().manual_seed(seed))
    model(images).square().mean().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.grad is not None:
                parameter.sub_(parameter.grad, alpha=0.1)
                parameter.grad = None


def test_it_is_the_average_of_a_loop_by_hand() -> None:
    model = network()
    ema = Ema(model, 0.9)
    expected = {name: tensor.double() for name, tensor in model.state_dict().items()}
    for step in range(30):
        train(model, step)
        ema.update()
        decay = min(0.9, (1 + step) / (10 + step))
        for name, tensor in model.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = decay * expected[name] + (1 - decay) * tensor.double()
            else:
                expected[name] = tensor.double()
    averaged = ema.tensors()
    assert list(averaged) == list(model.state_dict())
    for name, tensor in averaged.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-6)
    assert not torch.equal(averaged["1.running_var"], model.state_dict()["1.running_var"])
    assert averaged["1.num_batches_tracked"] == 30
    assert averaged["3.bias"].data_ptr() == model.get_parameter("3.bias").data_ptr(), "what does not learn has no copy"


def test_the_network_has_the_average_for_a_while_and_its_own_again() -> None:
    model = network()
    ema = Ema(model, 0.9)
    for step in range(5):
        train(model, step)
        ema.update()
    places = [one.data_ptr() for one in model.parameters()]
    own = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = {name: tensor.clone() for name, tensor in ema.tensors().items()}
    with ema.applied():
        assert all(torch.equal(tensor, average[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ZeroDivisionError), ema.applied():
        1 / 0  # noqa: B018  an evaluation that fails
    assert all(torch.equal(tensor, own[name]) for name, tensor in model.state_dict().items())
    assert all(torch.equal(tensor, average[name]) for name, tensor in ema.tensors().items())
    assert [one.data_ptr() for one in model.parameters()] == places, "an optimizer holds these tensors"


def test_it_goes_on_where_it_was() -> None:
    whole, resumed = network(), network()
    ema = Ema(whole, 0.99)
    for step in range(5):
        train(whole, step)
        ema.update()
    resumed.load_state_dict(whole.state_dict())
    other = Ema(resumed, 0.99)
    other.load({name: tensor.clone().contiguous() for name, tensor in ema.tensors().items()}, updates=5)
    for step in range(5, 9):
        for model, average in ((whole, ema), (resumed, other)):
            train(model, step)
            average.update()
    assert all(torch.equal(tensor, other.tensors()[name]) for name, tensor in ema.tensors().items())
