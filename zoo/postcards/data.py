"""Scenes of postcards: 20 stamps over 8 places in 6 motions, 960 prompts. The pictures come from `zoo/pictures.py`."""

from ..scenes import Scenes
from .words import WORDS

SUBJECTS = (
    "elephant", "giraffe", "rabbit", "koala", "penguin", "rooster", "flamingo", "owl", "parrot", "toucan",
    "seahorse", "angelfish", "frog", "balloon", "firetruck", "car", "ship", "bus", "tricycle", "earth",
)  # fmt: skip
PLACES = ("leaves", "sky", "forest", "pier", "dusk", "dune", "storm", "beach")
MOTIONS = ("left", "right", "up", "down", "in", "out")
SCENES = Scenes(SUBJECTS, PLACES, MOTIONS, WORDS, side=32, scale=2.0)
