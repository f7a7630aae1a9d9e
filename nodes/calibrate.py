"""The BWCache Calibrate node: measures, tries plans, and says what each speed-up costs on this model."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

import torch
from comfy_api.latest import io
from comfy_extras.nodes_custom_sampler import Noise_RandomNoise, SamplerCustomAdvanced

from ..bwcache_core.calibration import (
    CalibrationError,
    Request,
    correlation_line,
    cost_line,
    plan_lines,
    request_of,
    summary,
    table,
)
from ..bwcache_core.report import RunStats
from ..bwcache_core.schedule import Schedule
from .apply import Stats, display_id
from .attach import is_flow, trimmed
from .events import running_server
from .preview import shown
from .report import NO_CHARTS, image_of, written
from .schema import CATEGORY, schema
from .trials import Bench, Outcome, calibrate

MOST_SEEDS = 16
LARGEST_SEED = 2**63

logger = logging.getLogger(__name__)


class BWCacheCalibrate(io.ComfyNode):
    """Samples a guider uncached on some seeds, then with plans for some speed-ups, and holds these against the former."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheCalibrate",
            display_name="BWCache Calibrate",
            category=CATEGORY,
            description="What a speed-up costs on your own model: samples some seeds without a cache, learns from them, tries "
            "plans, and gives the best plan for each speed-up, with a chart. Put it in the place of SamplerCustomAdvanced. "
            "With its defaults it takes up to 12 times as long. BWCache Apply with plan auto then takes the better plans; as "
            "text they go into its plan custom, steps.",
            search_aliases=["psnr", "benchmark", "measure", "tune", "plan", "speed up", "cache", "teacache", "easycache"],
            is_output_node=True,
            inputs=calibration_inputs(),
            outputs=calibration_outputs(),
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
        )

    @classmethod
    def validate_inputs(cls, speedups: str | None = None, choose: str | None = None) -> bool:
        """Before anything is loaded. Raises CalibrationError. A text that comes by a link is looked at when the node runs."""
        if speedups is not None and choose is not None:
            request_of(speedups, choose, 0, 1, 1)
        return True

    @classmethod
    def execute(
        cls, guider, sampler, sigmas, latent_image, first_seed: int, seeds: int, speedups: str, trials: int, choose: str
    ) -> io.NodeOutput:
        request = request_of(speedups, choose, first_seed, seeds, trials)
        if len(sigmas) < 2:  # BasicScheduler at denoise 0
            raise CalibrationError(f"sigmas has {len(sigmas)} noise levels, expected two or more: no step would run.")
        schedule = trimmed(sigmas.tolist(), is_flow(guider.model_patcher))
        cost = cost_line(request, schedule)
        logger.info("BWCache Calibrate: %s", cost)
        node_id = display_id(cls.hidden.dynprompt, cls.hidden.unique_id)
        runs = Runs(
            guider, sampler, sigmas, latent_image, request, schedule, lambda what: tell(node_id, f"{cost}\nNow {what}")
        )
        outcome = calibrate(Bench(guider, runs, sampler), request)
        tell(node_id, f"{cost}\nDone.")
        picture, words = chart(outcome), summary(outcome.verdict)
        on_node = shown(cls, words, picture) if picture is not None else shown(cls, f"{words}\n{NO_CHARTS}")
        verdict, stats = outcome.verdict, stats_of(outcome)
        picture = written(NO_CHARTS) if picture is None else picture
        texts = (verdict.chosen.plan.text, plan_lines(verdict), picture, f"{words}\n\n{table(verdict)}")
        return io.NodeOutput(outcome.latent, *texts, stats, ui=on_node)


def calibration_inputs() -> list:
    return [
        io.Guider.Input(
            "guider", tooltip="Which model is sampled, with which prompts. A BWCache Apply before it is left aside.",
        ),
        io.Sampler.Input("sampler", tooltip="What is learned holds for this sampler."),
        io.Sigmas.Input(
            "sigmas", tooltip="The noise schedule, from the noise on: noise is added to the latent. 8 steps or more teach "
            "something.",
        ),
        io.Latent.Input("latent_image", tooltip="What is sampled from: an empty latent, or one to change."),
        io.Int.Input(
            "first_seed", default=0, min=0, max=LARGEST_SEED,
            tooltip="The seed of the latent that comes out. Those after it are taken for the other runs.",
        ),
        io.Int.Input(
            "seeds", default=2, min=1, max=MOST_SEEDS,
            tooltip="How many seeds are measured, one uncached run for each. Higher makes better plans; after three little changes.",
        ),
        io.String.Input(
            "speedups", default="1.5 2 3",
            tooltip="The speed-ups to try, such as 1.5 2 3. Each takes up to four plans: the automatic one, one by what was "
            "measured, and two with fewer and with more computed steps at the start. The better one is given.",
        ),
        io.Int.Input(
            "trials", default=2, min=1, max=MOST_SEEDS,
            tooltip="On how many seeds plans are tried: each of them on one that was not measured, then the automatic plan and the "
            "closest of the others on those that were. Higher says more surely which is better.",
        ),
        io.String.Input(
            "choose", default="2x",
            tooltip='Which plan comes out: "2x" for that of a speed-up, "at least 35 dB" for the fastest that keeps it.',
        ),
    ]  # fmt: skip


def calibration_outputs() -> list:
    return [
        io.Latent.Output(
            display_name="latent", tooltip="The uncached latent of the first seed, as SamplerCustomAdvanced makes it.",
        ),
        io.String.Output(
            display_name="plan", tooltip="The chosen plan, as text for BWCache Apply: plan custom, steps.",
        ),
        io.String.Output(display_name="plans", tooltip="The better plan of each speed-up, one a line."),
        io.Image.Output(
            display_name="chart", tooltip="PSNR of the latents over the speed-up, a point for each trial, and which steps the "
            "better plans compute.",
        ),
        io.String.Output(display_name="table", tooltip="What came out in words, and every plan that was tried."),
        Stats.Output(display_name="stats", tooltip="Runs of the better plans, the chosen one last. For BWCache Report."),
    ]  # fmt: skip


class Runs:
    """Samples a guider as SamplerCustomAdvanced does, by that node itself: what it does to a latent differs between versions
    of ComfyUI. The progress bar goes over all runs of a request, in computed steps."""

    def __init__(
        self, guider, sampler, sigmas: torch.Tensor, latent: dict, request: Request, schedule: Schedule, say: Callable
    ) -> None:
        self.inputs, self.guider, self.say = (sampler, sigmas, latent), guider, say
        self.steps = schedule.steps
        self.done, self.total = 0, request.cost(schedule)

    def __call__(self, seed: int, computes: Sequence[int] | None, what: str) -> dict:
        """The LATENT of a seed. computes: steps that will compute, None for all."""
        self.say(what)
        computes = range(self.steps) if computes is None else computes
        guider = PartOfMore(self.guider, self.done, computes, self.total)
        latent = SamplerCustomAdvanced.execute(Noise_RandomNoise(seed), guider, *self.inputs).args[0]
        self.done += len(computes)
        return latent


class PartOfMore:
    """A guider whose progress is a part of a longer one's: `done` of `total` computed steps came before."""

    def __init__(self, guider, done: int, computes: Sequence[int], total: int) -> None:
        self.guider, self.done, self.computes, self.total = guider, done, computes, total

    @property
    def model_patcher(self):
        return self.guider.model_patcher

    def sample(self, *args, callback: Callable | None = None, **more):
        """As the guider does."""

        def over_all(step: int, *told) -> None:
            computed = sum(place <= step for place in self.computes)
            callback(self.done + computed - 1, *told[:-1], self.total)  # the last is the number of steps

        return self.guider.sample(*args, callback=callback and over_all, **more)


def tell(node_id: str, text: str) -> None:
    """On the node, while it runs."""
    server = running_server()
    if server is not None:
        server.send_progress_text(text, node_id, server.client_id)


def stats_of(outcome: Outcome) -> RunStats:
    """For BWCache Report, which tells of the newest run: of the chosen plan."""
    stats = RunStats()
    stats.runs.extend(outcome.reports)
    if outcome.verdict.correlation is not None:
        outcome.reports[-1].notes.append(correlation_line(outcome.verdict))
    return stats


def chart(outcome: Outcome) -> torch.Tensor | None:
    """(1, H, W, 3); None without matplotlib."""
    try:
        from .plan_charts import frontier, pixels  # matplotlib is optional, and slow to load
    except ModuleNotFoundError as error:
        logger.warning("BWCache Calibrate draws no chart: %s. %s", error, NO_CHARTS)
        return None
    return image_of(pixels(frontier(outcome.verdict)))
