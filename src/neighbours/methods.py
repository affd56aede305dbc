"""A method of the settings on a model: its loss, its batches, its optimizer; the states it goes through.

A method is a block of `neighbours.methods`: `loss`, `optimizer` with its learning rate, and what both need.
"""

import copy
import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel

from neighbours import grail, losses, newton
from unlearning.data.groups import Group
from unlearning.errors import StudyError
from unlearning.measure.ascent import State, Update, ascend, ascent_mean
from unlearning.measure.models import target_states
from unlearning.measure.optimizers import make_optimizer
from unlearning.measure.scoring import Prepared, log_likelihoods, prepare

# loss -> batches of forget and of retain data that it takes gradients of in one step
GRADIENTS = {
    **{"ascent": (1, 0), "npo": (1, 0), "simnpo": (1, 0), "nothing": (0, 0), "retain": (0, 1)},
    **{"difference": (1, 1), "kl": (1, 1), "grail": (1, 1)},
}


class NoisySGD(torch.optim.Optimizer):
    """θ ← θ − η(g + s z), z standard normal in each coordinate, from a seed of its own. Source: Abadi et al. 2016."""

    def __init__(self, parameters: Sequence[nn.Parameter], *, lr: float, noise: float, seed: int):
        super().__init__(parameters, {"lr": lr, "noise": noise})
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def step(self) -> None:
        """One step, with the noise drawn tensor by tensor."""
        for group in self.param_groups:
            for p in group["params"]:
                z = torch.randn(p.shape, generator=self.generator).to(p.device)
                p -= group["lr"] * (p.grad + group["noise"] * z)


def retain_batches(retain: Group, model: PreTrainedModel, *, size: int, seed: int) -> Iterator[Prepared]:
    """Batches without end of `size` retain examples, reshuffled in each pass."""
    generator = np.random.default_rng(seed)
    while True:
        order = generator.permutation(len(retain.ids))
        for start in range(0, max(1, len(order) - size + 1), size):
            yield prepare([retain.encoded[i] for i in order[start : start + size]], model.config)


def unlearning(
    model: PreTrainedModel, method: dict, forget: Group, retain: Group, *, masks: Sequence[Sequence[Tensor]], seed: int
) -> Iterator[State]:
    """Unlearn in place by a method; yields the state before each step, step 0 first, as `ascent.ascend` does.

    retain: examples that are rehearsed. masks: of GRAIL, else empty. seed: of retain batches and of noise.
    StudyError: the method looks at retain data, and there is none.
    """
    if gradients_a_step(method)[1] and not retain.ids:
        raise StudyError(f"Method {method['loss']} looks at retain data, and there is none. Give it retain examples.")
    ready = prepare(forget.encoded, model.config)
    if method["loss"] == "newton":
        yield from output_newton(model, ready, prepare(retain.first(method["retain"]).encoded, model.config), method)
        return
    batches = retain_batches(retain, model, size=len(forget.ids), seed=seed)
    parameters = list(model.parameters())
    weights = {name: method[name] for name in ("forget", "retain") if name in method}
    match method["loss"]:
        case "ascent":
            loss = ascent_mean
        case "difference":
            loss = losses.gradient_difference(**weights)
        case "grail":
            loss = grail.masked_difference(parameters, masks, **weights)
        case "kl":
            loss = losses.kl_to_original(model, copy.deepcopy(model), batches, weight=method["weight"])
        case "npo":
            with torch.no_grad():
                loss = losses.npo(log_likelihoods(model, ready)[0], beta=method["beta"])
        case "simnpo":
            loss = losses.simnpo(beta=method["beta"], gamma=method["gamma"])
        case "retain":
            loss = losses.retain_only
        case "nothing":
            loss = losses.nothing
    if method["optimizer"] == "noisy-sgd":
        optimizer = NoisySGD(parameters, lr=method["learning_rate"], noise=method["noise"], seed=seed)
    else:
        optimizer = make_optimizer(parameters, method["optimizer"], method)
    in_update = method["loss"] in ("difference", "grail", "retain")  # the divergence takes its own
    updates = (Update(ready, next(batches) if in_update else None) for _ in itertools.count())
    yield from ascend(model, optimizer, updates, loss=loss, clip_norm=method.get("clip_norm"))


def output_newton(model: PreTrainedModel, forget: Prepared, retain: Prepared, method: dict) -> Iterator[State]:
    """Trust-region Newton on the retain loss in the output layer, all else frozen; its input embeddings stay.

    A method, and no certificate: encoder and decoder have learnt from the forget set, and are left as they are.
    """
    head = model.get_output_embeddings()
    head.weight = nn.Parameter(head.weight.detach().clone())  # untied
    with torch.no_grad():
        states = torch.cat([target_states(model, batch.to(model.device)) for batch in retain.batches])
    targets = torch.cat([batch.targets for batch in retain.batches]).to(model.device)

    def loss(weight: Tensor) -> Tensor:
        return functional.cross_entropy(states @ weight.T, targets)

    options = {name: method[name] for name in ("damping", "iterations", "power")}
    for step, trial in enumerate(newton.trust_region(loss, head.weight, seed=0, **options)):
        with torch.no_grad():
            head.weight.copy_(trial.w)
            log_likelihood, n_correct = log_likelihoods(model, forget)
        yield State(step, log_likelihood.cpu(), n_correct.cpu())


def gradients_a_step(method: dict) -> tuple[int, int]:
    """Batches of forget and of retain data that a step takes gradients of; a Hessian-vector product counts as one."""
    return (0, 1 + method["iterations"]) if method["loss"] == "newton" else GRADIENTS[method["loss"]]
