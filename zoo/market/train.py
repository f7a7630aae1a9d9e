"""Trains market: python devtools/pack.py zoo.market.train --pictures DIR --out DIR --seconds 330"""

from ..training import Recipe, train
from .data import SCENES

RECIPE = Recipe(
    name="market",
    family="hunyuan",
    guidance="embedded",
    shown_shift=7.0,
    scale=6.0,
    network={"double": 3, "single": 6, "text_dim": 256},
    shift=4.0,
    distil=0.35,
    seed=3,
)

if __name__ == "__main__":
    train(SCENES, RECIPE)
