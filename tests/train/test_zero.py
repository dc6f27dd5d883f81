"""What each process keeps, for checkpoints, of the frozen weights that DeepSpeed's engine rounds."""

import torch
from torch import nn

from llm.train.zero import frozen_share


def frozen_but_for_the_last():
    net = nn.Sequential(*(nn.Linear(2, 3) for _ in range(3)))
    net[:2].requires_grad_(False)
    return net


def test_processes_share_what_is_frozen():
    net = frozen_but_for_the_last()
    shares = [frozen_share(net, rank, 3) for rank in range(3)]
    names = [name for share in shares for name in share]
    assert sorted(names) == ["0.bias", "0.weight", "1.bias", "1.weight"]
    assert all(
        torch.equal(value, net.state_dict()[name]) for share in shares for name, value in share.items()
    )


def test_they_are_copies_that_rounding_leaves_alone():
    net = frozen_but_for_the_last()
    share = frozen_share(net, 0, 1)
    before = {name: value.clone() for name, value in share.items()}
    net.bfloat16().float()
    with torch.no_grad():
        net[0].weight.zero_()
    assert all(torch.equal(value, before[name]) for name, value in share.items())
    assert all(value.dtype == torch.float32 for value in share.values())
