"""Trains postcards: python devtools/pack.py zoo.postcards.train --pictures DIR --out DIR --seconds 330"""

from ..training import Recipe, train
from .data import SCENES

RECIPE = Recipe(
    name="postcards",
    family="wan",
    guidance="cfg",
    shown_shift=8.0,
    scale=5.0,
    network={"num_layers": 12, "ffn_dim": 512},
    shift=5.0,
    seed=2,
)

if __name__ == "__main__":
    train(SCENES, RECIPE)
