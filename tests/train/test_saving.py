"""What a resumed run restores beside tensors."""

import torch
from torch.optim.lr_scheduler import LambdaLR

from llm.train.saving import set_schedule_step


def test_a_schedule_is_put_where_its_steps_would_have_put_it():
    def scheduler():
        parameters = [torch.nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimizer = torch.optim.SGD(
            [{"params": [p], "lr": lr} for p, lr in zip(parameters, (1.0, 0.1), strict=True)]
        )
        return LambdaLR(optimizer, lambda step: 1 / (step + 1))

    stepped, put = scheduler(), scheduler()
    for _ in range(7):
        stepped.optimizer.step()
        stepped.step()
    set_schedule_step(put, 7)
    for one in (stepped, put):
        one.optimizer.step()
        one.step()
    assert put.get_last_lr() == stepped.get_last_lr()
    assert put.state_dict()["last_epoch"] == 8
