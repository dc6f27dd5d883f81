"""The optimizers: AdamW and Muon, with parameters grouped by their names."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.optim import AdamW, Optimizer
from torch.optim.adamw import adamw as adamw_update

from llm.bounds import Count, NotNegative, Positive, ShareBelowOne
from llm.errors import ConfigError
from llm.train.parallelism import STRATEGIES, Parallelism
from llm.train.sharding import sharded_like, whole

# Shapes: m rows, n columns, b matrices of one shape.

NamedParameters = Iterable[tuple[str, nn.Parameter]]
OptimizerFactory = Callable[[NamedParameters], Optimizer]
Kind = Literal["matrix", "head", "embedding", "norm", "bias"]
Fused = Literal["auto"] | bool

FUSED_DEVICES = frozenset({"cpu", "cuda", "mps", "xpu"})
VECTOR_LEAVES = frozenset({"bias", "scale", "gain"})
DECAYED: frozenset[Kind] = frozenset({"matrix", "head"})
# The quintic of Jordan et al. (2024), https://kellerjordan.github.io/posts/muon/: steepest at zero, so that five
# steps carry every singular value into about [0.7, 1.2].
QUINTIC = (3.4445, -4.7750, 2.0315)
# One stack of matrices at a time, so that a large model's gradients are never all copied at once.
STACK_ELEMENTS = 2**26


def parameter_kind(name: str) -> Kind:
    """What a parameter is, by its dotted name alone.

    Names, not shapes, decide, because FSDP1 and ZeRO-3 flatten parameters: a matrix is then a vector, and a rule
    on `p.dim()` silently drops all weight decay. The parts of the name say it: a last part `bias`, `scale` or
    `gain` is a bias; a part with `norm` a norm; a part that starts with `unembed` or ends in `head` the head (a
    tied head goes by its embedding's name); a part with `embed` or `position` an embedding; all else a matrix.
    """
    parts = name.lower().split(".")
    if parts[-1] in VECTOR_LEAVES:
        return "bias"
    if any("norm" in part for part in parts):
        return "norm"
    if any(part.startswith("unembed") or part.endswith("head") for part in parts):
        return "head"
    return "embedding" if any("embed" in part or "position" in part for part in parts) else "matrix"


def by_kind(named_parameters: NamedParameters) -> dict[Kind, list[tuple[str, nn.Parameter]]]:
    """The trainable parameters of each kind, in order.

    Raises:
        ConfigError: nothing is trainable.
    """
    kinds: dict[Kind, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            kinds.setdefault(parameter_kind(name), []).append((name, parameter))
    if not kinds:
        raise ConfigError("The optimizer has nothing to train: every parameter of the model is frozen.")
    return kinds


def decay_groups(
    kinds: Mapping[Kind, list[tuple[str, nn.Parameter]]], weight_decay: float
) -> Iterator[dict[str, Any]]:
    """One group that decays and one that doesn't, in that order, an empty one left out.

    Matrices and untied heads decay. Norms and biases don't, for zero is not where they belong, nor do embeddings,
    tied ones included: decay shrinks rare tokens' rows towards zero, where the norm behind amplifies their
    gradients (OLMo 2, arXiv 2501.00656, section 3.4.2).
    """
    for decays in (True, False):
        parameters = [p for kind, named in kinds.items() if (kind in DECAYED) == decays for _, p in named]
        if parameters:
            yield {"params": parameters, "weight_decay": weight_decay if decays else 0.0}


def use_fused(fused: Fused, parameters: Iterable[Tensor]) -> bool:
    """Whether AdamW runs as one kernel; `auto` says yes wherever every parameter's device has it."""
    if fused == "auto":
        return all(p.device.type in FUSED_DEVICES and p.is_floating_point() for p in parameters)
    return fused


def require(fine: bool, key: str, value: object, rule: str) -> None:
    """Refuse an optimizer setting.

    Raises:
        ConfigError: not `fine`.
    """
    if not fine:
        raise ConfigError(f"optimizer.{key}={value}: {rule}.")


def check_adamw(lr: float, lr_key: str, weight_decay: float, betas: Sequence[float], eps: float) -> None:
    """Refuse what AdamW can't work with.

    Raises:
        ConfigError: a value is out of its range.
    """
    require(lr > 0, lr_key, lr, "a learning rate is above 0")
    require(weight_decay >= 0, "weight_decay", weight_decay, "weight decay is 0 or above")
    in_range = len(betas) == 2 and all(0 <= beta < 1 for beta in betas)
    require(in_range, "betas", list(betas), "two numbers are needed, each at least 0 and below 1")
    require(eps > 0, "eps", eps, "eps is above 0")


def adamw(
    named_parameters: NamedParameters,
    *,
    lr: Positive = 1e-3,
    weight_decay: NotNegative = 0.1,
    betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95),
    eps: Positive = 1e-8,
    fused: Fused = "auto",
) -> AdamW:
    """AdamW (Loshchilov and Hutter, arXiv 1711.05101) with decay on matrices and heads alone.

    The defaults suit the default model (256 wide, a few million parameters); a larger one wants a smaller `lr`,
    such as 6e-4 at 124 million and 3e-4 at 350 million (GPT-3, arXiv 2005.14165, table 2.1).

    Args:
        named_parameters: the model's; frozen ones are left out.
        lr: the peak learning rate, before the schedule's multiplier.
        weight_decay: the decoupled decay, per step `lr * weight_decay`.
        betas: how slowly the first and second moments move.
        eps: added to the root of the second moment.
        fused: one kernel for all parameters; `auto` wherever the device has it.

    Raises:
        ConfigError: a value is out of its range, or nothing is trainable.
    """
    check_adamw(lr, "lr", weight_decay, betas, eps)
    groups = list(decay_groups(by_kind(named_parameters), weight_decay))
    one_kernel = use_fused(fused, (p for group in groups for p in group["params"]))
    return AdamW(groups, lr=lr, betas=(betas[0], betas[1]), eps=eps, fused=one_kernel)


def orthogonalize(matrices_bmn: Tensor, steps: int = 5, dtype: torch.dtype = torch.float32) -> Tensor:
    """The nearest semi-orthogonal matrix of each, roughly: U S' Vᵀ with S' near 1 where the input is U S Vᵀ.

    A Newton-Schulz iteration with a quintic (Jordan et al., 2024), in `dtype`; float32 makes it the same to
    rounding on every strategy, bfloat16 is faster on accelerators. Zeros stay zeros.
    """
    a, b, c = QUINTIC
    tall = matrices_bmn.size(-2) > matrices_bmn.size(-1)
    x_bmn = (matrices_bmn.mT if tall else matrices_bmn).to(dtype)
    # The Frobenius norm bounds the largest singular value, and the quintic wants that below about 1.
    x_bmn = x_bmn / x_bmn.norm(dim=(-2, -1), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram_bmm = x_bmn @ x_bmn.mT
        polynomial_bmm = torch.baddbmm(gram_bmm, gram_bmm, gram_bmm, beta=b, alpha=c)
        x_bmn = torch.baddbmm(x_bmn, polynomial_bmm, x_bmn, beta=a)
    return (x_bmn.mT if tall else x_bmn).to(matrices_bmn.dtype)


def orthogonalize_all(matrices: Sequence[Tensor], function: Callable[[Tensor], Tensor]) -> list[Tensor]:
    """`function` of each matrix, called on stacks of those of one shape, since a few large products beat many."""
    places: dict[torch.Size, list[int]] = {}
    for i, matrix in enumerate(matrices):
        places.setdefault(matrix.shape, []).append(i)
    done: list[Tensor] = list(matrices)
    for shape, indices in places.items():
        size = max(1, STACK_ELEMENTS // shape.numel())
        for start in range(0, len(indices), size):
            chunk = indices[start : start + size]
            for i, result in zip(chunk, function(torch.stack([matrices[i] for i in chunk])), strict=True):
                done[i] = result
    return done


class Muon(Optimizer):
    """Muon for the hidden matrices and AdamW for everything else, as one optimizer.

    Muon (Jordan et al., 2024, https://kellerjordan.github.io/posts/muon/) steps along the orthogonalised momentum
    of each matrix. The update of an m x n matrix is scaled by `0.2 * sqrt(max(m, n))`, which gives it the root mean
    square of an AdamW update whatever the shape, so that learning rate and decay carry over from AdamW and from one
    width to another (Liu et al., "Muon is scalable for LLM training", arXiv 2502.16982). Embeddings, heads, norms
    and biases take AdamW, with the decay that `decay_groups` states. The schedule multiplies both learning rates.

    State: `momentum_buffer` for a matrix; `step`, `exp_avg` and `exp_avg_sq` for the rest.

    Args:
        named_parameters: the model's; frozen ones are left out.
        lr: the peak learning rate of the matrices.
        adam_lr: the peak learning rate of the rest.
        weight_decay: the decoupled decay of matrices and heads.
        momentum: how slowly a matrix's momentum moves.
        nesterov: whether to look ahead by one gradient.
        newton_schulz_steps: the iterations of `orthogonalize`.
        newton_schulz_dtype: what they compute in.
        betas: AdamW's.
        eps: AdamW's.
        fused: AdamW's.

    Raises:
        ConfigError: a value is out of its range, a matrix isn't two-dimensional, or nothing is trainable.
    """

    NEEDS_WHOLE_MATRICES: ClassVar[bool] = True

    def __init__(
        self,
        named_parameters: NamedParameters,
        *,
        lr: Positive = 5e-3,
        adam_lr: Positive = 1e-2,
        weight_decay: NotNegative = 0.1,
        momentum: ShareBelowOne = 0.95,
        nesterov: bool = True,
        newton_schulz_steps: Count = 5,
        newton_schulz_dtype: Literal["float32", "bfloat16"] = "float32",
        betas: tuple[ShareBelowOne, ShareBelowOne] = (0.9, 0.95),
        eps: Positive = 1e-8,
        fused: Fused = "auto",
    ) -> None:
        check_adamw(adam_lr, "adam_lr", weight_decay, betas, eps)
        require(lr > 0, "lr", lr, "a learning rate is above 0")
        require(0 <= momentum < 1, "momentum", momentum, "momentum is at least 0 and below 1")
        require(
            newton_schulz_steps > 0, "newton_schulz_steps", newton_schulz_steps, "at least one step is needed"
        )
        kinds = by_kind(named_parameters)
        matrices = kinds.pop("matrix", [])
        check_matrices(matrices)
        groups: list[dict[str, Any]] = [
            {"algorithm": "adamw", "lr": adam_lr, "betas": (betas[0], betas[1]), "eps": eps, **group}
            for group in decay_groups(kinds, weight_decay)
        ]
        for group in groups:
            group["fused"] = use_fused(fused, group["params"])
        if matrices:
            own = {"lr": lr, "weight_decay": weight_decay, "momentum": momentum, "nesterov": nesterov}
            groups.insert(0, {"algorithm": "muon", "params": [p for _, p in matrices], **own})
        self._newton_schulz = (newton_schulz_steps, getattr(torch, newton_schulz_dtype))
        super().__init__(groups, {})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient; returns what `closure` gives."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            update = self._muon if group["algorithm"] == "muon" else self._adamw
            if parameters:
                update(group, parameters)
        return loss

    def _muon(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        steps, dtype = self._newton_schulz
        directions = [whole(self._direction(group, p)) for p in parameters]
        updates = orthogonalize_all(directions, lambda stack_bmn: orthogonalize(stack_bmn, steps, dtype))
        for p, update in zip(parameters, updates, strict=True):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.sub_(sharded_like(update, p), alpha=group["lr"] * 0.2 * math.sqrt(max(p.shape)))

    def _direction(self, group: dict[str, Any], p: Tensor) -> Tensor:
        """Move the momentum by the gradient, and give what to step along."""
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        assert p.grad is not None
        momentum = state["momentum_buffer"].lerp_(p.grad, 1 - group["momentum"])
        return p.grad.lerp(momentum, group["momentum"]) if group["nesterov"] else momentum

    def _adamw(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        states = [self._moments(p, group["fused"]) for p in parameters]
        adamw_update(
            parameters,
            [p.grad for p in parameters],  # type: ignore[misc]
            [state["exp_avg"] for state in states],
            [state["exp_avg_sq"] for state in states],
            [],
            [state["step"] for state in states],
            fused=group["fused"],
            amsgrad=False,
            beta1=group["betas"][0],
            beta2=group["betas"][1],
            lr=group["lr"],
            weight_decay=group["weight_decay"],
            eps=group["eps"],
            maximize=False,
        )

    def _moments(self, p: Tensor, fused: bool) -> dict[str, Tensor]:
        state = self.state[p]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=p.device if fused else "cpu")
            state["exp_avg"] = torch.zeros_like(p)
            state["exp_avg_sq"] = torch.zeros_like(p)
        return state


def check_matrices(named: list[tuple[str, nn.Parameter]]) -> None:
    """Refuse what the names call a matrix and is none.

    Raises:
        ConfigError: a parameter isn't two-dimensional.
    """
    for name, matrix in named:
        if matrix.ndim != 2:
            raise ConfigError(
                f"optimizer=muon: {name} has the shape {tuple(matrix.shape)}, and Muon needs whole matrices. "
                "Use optimizer=adamw, which works under every strategy."
            )


def check_strategy(optimizer: Any, parallelism: Parallelism) -> None:
    """Refuse an optimizer under a strategy that it can't work with.

    Args:
        optimizer: the class or function that makes it; without `NEEDS_WHOLE_MATRICES` it works everywhere.
        parallelism: what the config's does.

    Raises:
        ConfigError: it doesn't work there.
    """
    if getattr(optimizer, "NEEDS_WHOLE_MATRICES", False) and not parallelism.gives_whole_matrices:
        others = sorted(one.name for one in STRATEGIES.values() if one.gives_whole_matrices)
        raise ConfigError(
            f"optimizer={optimizer.__name__.lower()} doesn't work under strategy={parallelism.name}: it needs whole "
            f"matrices. Use strategy={'|'.join(others)}, or optimizer=adamw, which works everywhere."
        )
