"""Lists of steps to compute that others found by optimisation on real weights, as plans by name.

LeMiCa (UnicomAI/LeMiCa, the copy scruffynerf/LeMiCa at 498c89b) and MeanCache (UnicomAI/MeanCache at 2e12280). They were made
for outputs that are repeated, or averaged; here they run with the forecasts and the corrector of this pack. For a run of
another length or shift they are mapped by noise level (plan.py), by equal parts of the run where the source names no shift.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass


@dataclass(frozen=True)
class PublishedList:
    """model, method: in the words of users. source: the file in the repository of the method. text: of the plan."""

    model: str
    method: str
    source: str
    text: str

    @property
    def name(self) -> str:
        """Wan 2.1 14B, LeMiCa, 20 of 50."""
        steps, length = self.text.split("/")
        ends = [part.split("-") for part in steps.split()]
        computed = sum(int(part[-1]) - int(part[0]) + 1 for part in ends)
        return f"{self.model}, {self.method}, {computed} of {length.partition('@')[0]}"

    @property
    def note(self) -> str:
        """Where the plan comes from."""
        return f"{self.name}, from {self.source}"


TABLE = {
    ("Wan 2.1 1.3B", "LeMiCa", "LeMiCa4Wan2.1/inference_wan.py"): (
        "0-12 14 16 18 21 24 29 35 40 44 47-49/50@5",
        "0-9 11 13 16 20 26 33 40 45 48-49/50@5",
        "0-8 10 13 18 25 32 39 46 49/50@5",
        "0-5 7 10 16 23 30 37 44 49/50@5",
    ),
    ("Wan 2.1 14B", "LeMiCa", "LeMiCa4Wan2.1/inference_wan.py"): (
        "0-11 13 15 18 21 25 29 34 38 42 45 47-49/50@5",
        "0-9 11 14 18 23 29 36 42 46 48-49/50@5",
        "0-7 9 12 16 22 29 36 43 47 49/50@5",
        "0-5 7 10 17 24 31 38 45 49/50@5",
    ),
    ("Wan 2.1 I2V 14B", "LeMiCa", "LeMiCa4Wan2.1/inference_wan.py"): (
        "0-10 12 14 16 18 21 24 27 30 32 34 36-39/40",
        "0-6 8 10 12 15 18 21 25 29 32 35 37-39/40",
        "0-5 7 9 12 15 19 24 29 33 36 38-39/40",
        "0-4 6 8 11 15 22 29 34 37 39/40",
    ),
    ("HunyuanVideo 1.5", "LeMiCa", "LeMiCa4HunyuanVideo1.5/infer_state.py"): (
        "0-13 15 17 19 21 24 28 33 39 45 48-49/50",
        "0-11 13 15 18 22 28 36 44 49/50",
        "0-6 8 10 13 17 25 33 41 49/50",
        "0-1 3 5 9 17 25 33 41 49/50",
    ),
    ("FLUX.1", "LeMiCa", "LeMiCa4FLUX/inference_flux1.py"): (
        "0-10 12 15 18 20 25 30 35 39 42 44-49/50",
        "0-7 9 12 15 19 24 31 38 43 46-49/50",
        "0-5 7 10 15 20 27 34 41 47 49/50",
        "0-1 3 7 14 21 28 35 42 49/50",
    ),
    ("FLUX.2", "LeMiCa", "LeMiCa4FLUX/inference_flux2.py"): (
        "0-20 27 34 41 47 49/50",
        "0-14 21 28 35 42 49/50",
        "0-5 8-9 15 21 27 33 39 45 49/50",
    ),
    ("Qwen-Image", "LeMiCa", "LeMiCa4QwenImage/inference_qwenimage.py"): (
        "0-19 26 33 36 42 49/50",
        "0-10 15 22 29 36 42 49/50",
        "0-1 3 7 14 21 28 35 42 49/50",
    ),
    ("Qwen-Image", "MeanCache", "MeanCache4Qwen-Image/Mc_qwenimage.py"): (
        "0-16 24 32 40 43 45 47-49/50",
        "0-8 10 17 24 31 38 45 48-49/50",
        "0-1 3 7 14 21 28 35 42 49/50",
    ),
    ("Qwen-Image 2512", "MeanCache", "MeanCache4Qwen-Image/Mc_qwenimage_2512.py"): (
        "0-15 23 31 37 44-49/50",
        "0-9 11 19 27 35 43 47 49/50",
        "0 2 4 7 14 21 28 35 42 49/50",
    ),
    ("Z-Image", "MeanCache", "MeanCache4Z-Image/MC_zimage.py"): (
        "0-6 8 10-13 15-18 20 22 29 37 42 45 47-49/50",
        "0-4 6 8 10 12 14 16 18 20 22 30 38 43 46 48-49/50",
        "0-4 6 8 10 12 14 19 27 35 43 46 48-49/50",
        "0-3 5 7 10 12 17 25 33 41 45 48-49/50",
        "0-3 5 9 15 22 29 36 43 47 49/50",
    ),
}
LISTS = tuple(PublishedList(*described, text) for described, texts in TABLE.items() for text in texts)


def published(name: str) -> PublishedList | None:
    """The list of a name, whatever its case and spaces; None for none."""
    return next((known for known in LISTS if plainly(known.name) == plainly(name)), None)


def nearest(name: str) -> str:
    """The name of a list that looks most like `name`; empty where none does."""
    by_words = {plainly(known.name): known.name for known in LISTS}
    return "".join(by_words[found] for found in difflib.get_close_matches(plainly(name), by_words, 1))


def plainly(name: str) -> str:
    return re.sub(r"\s+", "", name).casefold()
