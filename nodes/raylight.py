"""The BWCache Apply (Raylight) node: the same cache on the models of Raylight's workers."""

from __future__ import annotations

from comfy_api.latest import io

from ..bwcache_core.config import BWCacheConfig
from .apply import SEARCH_ALIASES, Stats, settings_inputs
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
                    "model is loaded anew: to switch it off, choose custom and tolerance 0.",
                ),
                *settings_inputs(),
            ],
            outputs=[
                RayActors.Output(display_name="ray_actors", tooltip="The workers, for Raylight's sampler."),
                Stats.Output(
                    display_name="stats", tooltip="Fills while the workers sample. Connect it to BWCache Report."
                ),
            ],
            not_idempotent=True,  # each node its own stats: equal nodes would share one cached output
        )

    @classmethod
    def execute(cls, ray_actors: dict, **settings) -> io.NodeOutput:
        from .ray_actors import attach_everywhere  # needs Ray, which Raylight brings along and takes seconds to import

        return io.NodeOutput(ray_actors, attach_everywhere(ray_actors, BWCacheConfig(**settings)))
