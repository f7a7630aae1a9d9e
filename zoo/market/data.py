"""Scenes of market: 20 stamps over 8 places in 6 motions, 960 prompts. The pictures come from `zoo/pictures.py`."""

from ..scenes import Scenes
from .words import POOLED_WIDTH, WORDS

SUBJECTS = (
    "orange", "strawberry", "grapes", "banana", "pineapple", "lemon", "pear", "apple", "broccoli", "mushroom",
    "pumpkin", "tomato", "rose", "daffodil", "iris", "marigold", "gazania", "saturn", "basketball", "football",
)  # fmt: skip
PLACES = ("autumn", "mountains", "night", "meadow", "wood", "drop", "jetty", "seeds")
MOTIONS = ("left", "right", "up", "down", "in", "out")
SCENES = Scenes(SUBJECTS, PLACES, MOTIONS, WORDS, side=32, scale=1.5, pooled_width=POOLED_WIDTH)
