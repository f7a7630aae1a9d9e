"""The BWCache Apply (Raylight) node: the same cache on the models of Raylight's workers."""

from __future__ import annotations

from comfy_api.latest import io

from .apply import SEARCH_ALIASES, Stats, inputs_of
from .inputs import WORKER_MODES, check, check_choices, config_of, settings_inputs
from .schema import CATEGORY, schema

RayActors = io.Custom("RAY_ACTORS")


class BWCacheApplyRaylight(io.ComfyNode):
    """Attaches the cache in every worker, and returns the workers with a stats handle that fills while they sample."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return schema(
            node_id="BWCacheApplyRaylight",
            display_name="BWCache Apply (Raylight)",
            category=CATEGORY,
            description="BWCache Apply for Raylight, which samples one video on several GPUs: all of its workers reuse "
            "the same steps. Put it between Raylight's model loader and its sampler.",
            search_aliases=[*SEARCH_ALIASES, "raylight", "ray", "multi gpu"],
            inputs=[
                RayActors.Input(
                    "ray_actors",
                    tooltip="Raylight's workers with their model. They keep the cache until a "
                    "model is loaded anew: to switch it off, set threshold to 0.",
                ),
                *settings_inputs(WORKER_MODES),
            ],
            outputs=[
                RayActors.Output(display_name="ray_actors", tooltip="The workers, for Raylight's sampler."),
                Stats.Output(
                    display_name="stats", tooltip="Fills while the workers sample. Connect it to BWCache Report."
                ),
            ],
            hidden=[io.Hidden.unique_id, io.Hidden.dynprompt],
            not_idempotent=True,  # each node its own stats: equal nodes would share one cached output
        )

    @classmethod
    def validate_inputs(cls, mode: dict | None = None, **others) -> bool:
        return check(mode)

    @classmethod
    def execute(cls, ray_actors: dict, mode: dict | None = None) -> io.NodeOutput:
        from .ray_actors import attach_everywhere  # needs Ray, which Raylight brings along and takes seconds to import

        check_choices(inputs_of(cls.hidden.dynprompt, cls.hidden.unique_id), WORKER_MODES)
        return io.NodeOutput(ray_actors, attach_everywhere(ray_actors, config_of(mode)))
