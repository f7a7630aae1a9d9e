"""Watches the forecast mode from both sides: what guiders asked for and were given, and what reached ComfyUI below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from bwcache_pack.bwcache_core.forecast import SHARE, best_share, forecast_weights


@dataclass
class Asked:
    """One call of CALC_COND_BATCH. given: what the guider got. computed: what ComfyUI made below the cache, None where it
    was not asked. frames: of a context window. Tensors are copies, taken before anything can write into them."""

    x: torch.Tensor
    sigma: torch.Tensor
    present: tuple[bool, ...]
    given: list[torch.Tensor] = field(default_factory=list)
    computed: list[torch.Tensor] | None = None
    frames: tuple[int, ...] = ()

    def velocity(self, condition: int) -> torch.Tensor:
        return (self.x - self.computed[condition]) / spread(self.sigma, self.x)


@dataclass
class Evaluation:
    """calls: in the order in which the guider made them. model_calls: how often the diffusion model ran."""

    sigma: float
    calls: list[Asked] = field(default_factory=list)
    model_calls: int = 0
    input_written: bool = False

    @property
    def ran(self) -> bool:
        return self.model_calls > 0


class Calls:
    """`model` is a clone with the cache between two watchers. Sample it through `sample`, which counts model calls.

    before, after: what else lies outside and inside the cache: functions of a model that give one back.
    """

    def __init__(self, lab, model=None, before=None, after=None, **settings) -> None:
        self.lab = lab
        self.evaluations: list[Evaluation] = []
        outside = (model or lab.plain).clone()
        outside.add_wrapper_with_key("predict_noise", "calls outside", self._evaluation)
        outside.add_wrapper_with_key("calc_cond_batch", "calls outside", self._asked)
        self.cached = lab.cached(before(outside) if before else outside, **settings)
        inside = self.cached.model.clone()
        inside.add_wrapper_with_key("calc_cond_batch", "calls inside", self._computed)
        self.model = after(inside) if after else inside
        self._open: list[Asked] = []

    def sample(self, **request) -> torch.Tensor:
        return self.counting(lambda: self.lab.sample(self.model, **request))

    def counting(self, run):
        """What `run` returns, with the calls of the diffusion model counted."""
        self.evaluations.clear()
        handle = self.lab.module(self.model).register_forward_pre_hook(self._model_ran)
        try:
            return run()
        finally:
            handle.remove()

    @property
    def report(self):
        return self.cached.report

    @property
    def ran(self) -> list[int]:
        """Evaluations that ran the model."""
        return [i for i, evaluation in enumerate(self.evaluations) if evaluation.ran]

    def _model_ran(self, *_) -> None:
        if self.evaluations:
            self.evaluations[-1].model_calls += 1

    def _evaluation(self, executor, x, timestep, *args, **kwargs):
        self.evaluations.append(Evaluation(float(timestep.flatten()[0])))
        before = x.clone()
        result = executor(x, timestep, *args, **kwargs)
        self.evaluations[-1].input_written = not torch.equal(before, x)
        return result

    def _asked(self, executor, model, conds, x, timestep, *args, **kwargs):
        asked = Asked(x.clone(), timestep.clone(), tuple(bool(entries) for entries in conds))
        options = next((a for a in (*args, *kwargs.values()) if isinstance(a, dict)), {})
        window = options.get("transformer_options", {}).get("context_window")
        asked.frames = () if window is None else tuple(window.index_list)
        if self.evaluations:  # some samplers and nodes ask before the first evaluation
            self.evaluations[-1].calls.append(asked)
        self._open.append(asked)
        try:
            result = executor(model, conds, x, timestep, *args, **kwargs)
        finally:
            self._open.pop()
        asked.given = [denoised.clone() for denoised in result]
        return result

    def _computed(self, executor, *args, **kwargs):
        result = executor(*args, **kwargs)
        self._open[-1].computed = [denoised.clone() for denoised in result]
        return result


class Truth(Calls):
    """Also asks the model what each reused call should have been. errors: relative L1 of the forecast of the output,
    (x - D) / sigma, by evaluation: the largest of all conditions and rows."""

    def __init__(self, *args, **kwargs) -> None:
        self.errors: dict[int, float] = {}
        self._asking = False
        super().__init__(*args, **kwargs)

    def sample(self, **request) -> torch.Tensor:
        self.errors.clear()
        return super().sample(**request)

    def _asked(self, executor, model, conds, x, timestep, *rest):
        result = super()._asked(executor, model, conds, x, timestep, *rest)
        evaluation = self.evaluations[-1]
        asked = evaluation.calls[-1]
        if asked.computed is not None or not rest:
            return result
        ran, options = evaluation.model_calls, rest[0]
        inner = {name: value for name, value in options["transformer_options"].items() if name != "bwcache"}
        self._asking = True
        truth = executor(model, conds, x, timestep, {**options, "transformer_options": inner})
        self._asking, evaluation.model_calls = False, ran
        found = [worst_row(given, d, x) for given, d, wanted in zip(asked.given, truth, asked.present, strict=True) if wanted]
        n = len(self.evaluations) - 1
        self.errors[n] = max([self.errors.get(n, 0.0), *found])
        return result

    def _computed(self, executor, *args, **kwargs):
        return executor(*args, **kwargs) if self._asking else super()._computed(executor, *args, **kwargs)

    @property
    def worst(self) -> float:
        return max(self.errors.values(), default=0.0)


def worst_row(given: torch.Tensor, truth: torch.Tensor, x: torch.Tensor) -> float:
    off, whole = ((a - truth).abs().flatten(1).sum(1) for a in (given, x))
    return float((off / whole).max())


def spread(sigma: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """sigma (B,) along the rows of x."""
    return sigma.reshape(-1, *[1] * (x.ndim - 1))


def foretold(
    evaluations: Sequence[Evaluation], n: int, call: int, condition: int, places: Sequence[float], since: int = 0
) -> torch.Tensor:
    """D of one condition in evaluation n by hand: x - sigma * line, through what was computed last before.

    places: of each evaluation, in steps. since: the evaluation from which on the call was made without a break.
    """
    earlier = [i for i in range(since, n) if evaluations[i].calls[call].computed is not None][-2:]
    share = measured_share(evaluations[since:n], call, places[since:])
    weights = forecast_weights([places[i] for i in earlier], places[n], share)
    line = sum(w * evaluations[i].calls[call].velocity(condition).double() for w, i in zip(weights, earlier, strict=True))
    asked = evaluations[n].calls[call]
    return (asked.x - spread(asked.sigma, asked.x) * line).to(asked.x.dtype)


def measured_share(evaluations: Sequence[Evaluation], call: int, places: Sequence[float]) -> float:
    """How far the forecast after `evaluations` goes to the line: what would have been best at the last computed one."""
    share, nodes = SHARE, []
    for asked, place in ((evaluation.calls[call], place) for evaluation, place in zip(evaluations, places, strict=False)):
        if asked.computed is None:
            continue
        v = torch.stack([asked.velocity(i).double() for i, wanted in enumerate(asked.present) if wanted])
        if len(nodes) == 2 and place > nodes[-1][0]:
            (before, older), (here, newest) = nodes
            way = (newest - older) * (place - here) / (here - before)
            share = best_share(float(((v - newest) * way).sum()), float((way * way).sum()), share)
        nodes = [*(node for node in nodes if node[0] < place), (place, v)][-2:]
    return share
