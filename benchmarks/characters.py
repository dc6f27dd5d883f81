"""nanoGPT's recipe for a CPU, written anew in plain torch: a character model of one text, scored on its last tenth.

A contestant of shakespeare.py: 4 layers of 128 with 4 heads, context 64, 12 sequences a step, 2,000 steps of AdamW at
1e-3 after 100 steps of warm-up, a cosine down to 1e-4, betas 0.9 and 0.99, decay 0.1 on matrices, clipping at 1.0, no
dropout, float32. Nothing is evaluated on the way.

    python benchmarks/characters.py tinyshakespeare.txt --steps 2000

Shapes: b batch, t time, d width, h heads, e head width, v vocabulary, n characters.
"""

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from timing import say
from torch import Tensor, nn

LAYERS, HEADS, WIDTH, CONTEXT, BATCH = 4, 4, 128, 64, 12
PEAK, FLOOR, WARM_UP = 1e-3, 1e-4, 100
HELD_OUT = 0.1


class Block(nn.Module):
    """Attention and feed-forward, each with the norm before it, without biases."""

    def __init__(self) -> None:
        super().__init__()
        self.norm_1 = nn.LayerNorm(WIDTH, bias=False)
        self.norm_2 = nn.LayerNorm(WIDTH, bias=False)
        self.inward = nn.Linear(WIDTH, 3 * WIDTH, bias=False)
        self.mixed = nn.Linear(WIDTH, WIDTH, bias=False)
        self.up = nn.Linear(WIDTH, 4 * WIDTH, bias=False)
        self.down = nn.Linear(4 * WIDTH, WIDTH, bias=False)

    def forward(self, x_btd: Tensor) -> Tensor:
        parts = self.inward(self.norm_1(x_btd)).chunk(3, dim=-1)
        q_bhte, k_bhte, v_bhte = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in parts)
        attended_bhte = F.scaled_dot_product_attention(q_bhte, k_bhte, v_bhte, is_causal=True)
        x_btd = x_btd + self.mixed(attended_bhte.transpose(1, 2).flatten(2))
        return x_btd + self.down(F.gelu(self.up(self.norm_2(x_btd))))


class CharacterModel(nn.Module):
    """A GPT whose head is its embedding."""

    def __init__(self, vocabulary: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, WIDTH)
        self.positions = nn.Embedding(CONTEXT, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(LAYERS)))
        self.norm = nn.LayerNorm(WIDTH, bias=False)
        for name, weight in self.named_parameters():
            if weight.dim() == 2:
                into_stream = name.endswith(("mixed.weight", "down.weight"))
                nn.init.normal_(weight, std=0.02 / math.sqrt(2 * LAYERS) if into_stream else 0.02)

    def forward(self, ids_bt: Tensor) -> Tensor:
        """The logits (b, t, v)."""
        x_btd = self.tokens(ids_bt) + self.positions.weight[: ids_bt.shape[1]]
        return F.linear(self.norm(self.blocks(x_btd)), self.tokens.weight)


def loss(model: nn.Module, window_bt: Tensor, reduction: str = "mean") -> Tensor:
    """Nats of every character of a window but the first."""
    logits_btv = model(window_bt[:, :-1])
    return F.cross_entropy(logits_btv.flatten(0, 1), window_bt[:, 1:].flatten(), reduction=reduction)


def rate(step: int, steps: int) -> float:
    """The learning rate of a step, counted from 0."""
    if step < WARM_UP:
        return PEAK * (step + 1) / (WARM_UP + 1)
    done = (step - WARM_UP) / max(1, steps - WARM_UP)
    return FLOOR + 0.5 * (1 + math.cos(math.pi * done)) * (PEAK - FLOOR)


def train(model: nn.Module, ids_n: Tensor, steps: int) -> None:
    """Train on windows drawn at random."""
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    others = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate(step, steps)
        starts = torch.randint(len(ids_n) - CONTEXT, (BATCH, 1))
        loss(model, ids_n[starts + torch.arange(CONTEXT + 1)]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


@torch.inference_mode()
def held_out_nats(model: nn.Module, ids_n: Tensor) -> float:
    """The sum over every character but the first, in windows side by side as train.py scores its own."""
    whole = (len(ids_n) - 1) // CONTEXT * CONTEXT
    windows = ids_n[: whole + 1].unfold(0, CONTEXT + 1, CONTEXT)
    nats = sum(loss(model, part, "sum").item() for part in windows.split(256))
    rest = ids_n[whole:]
    return nats + (loss(model, rest[None], "sum").item() if len(rest) > 1 else 0.0)


def split(text: bytes) -> tuple[str, str]:
    """The text and its held-out end, cut at the last line's end before it: where data=text cuts one file."""
    at = text.rfind(b"\n", 0, int(len(text) * (1 - HELD_OUT))) + 1
    return text[:at].decode(), text[at:].decode()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("text", type=Path)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1337)
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    text, held_out = split(args.text.read_bytes())
    ids = {character: index for index, character in enumerate(sorted(set(text + held_out)))}
    train_n, held_out_n = (torch.tensor([ids[character] for character in part]) for part in (text, held_out))
    model = CharacterModel(len(ids))
    train(model, train_n, args.steps)
    nats, n_bytes = held_out_nats(model, held_out_n), len(held_out.encode())
    say(
        {
            "nats_per_character": nats / (len(held_out_n) - 1),
            "bits_per_byte": nats / math.log(2) / n_bytes,
            "held_out_bytes": n_bytes,
        }
    )


if __name__ == "__main__":
    main()
