"""A test's own nodes: conditioning from TinyWan's words, so that a server samples without a text encoder, and a list.

It also ends the server when the test that started it is gone, however that ended.
"""

import importlib.util
import os
import threading
import time
from pathlib import Path

WORDS = Path(__file__).resolve().parents[4] / "zoo" / "tinywan" / "words.py"


class TinyWords:
    CATEGORY = "tests"
    FUNCTION = "encode"
    RETURN_TYPES = ("CONDITIONING",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"text": ("STRING", {"default": "red circle moving left"})}}

    def encode(self, text):
        spec = importlib.util.spec_from_file_location("tinywan_words", WORDS)
        words = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(words)
        return ([[words.encode(text), {}]],)


class TinySpeedups:
    CATEGORY = "tests"
    FUNCTION = "make"
    RETURN_TYPES, OUTPUT_IS_LIST = ("FLOAT",), (True,)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    def make(self):
        return ([1.5, 3.0],)


NODE_CLASS_MAPPINGS = {"TinyWords": TinyWords, "TinySpeedups": TinySpeedups}


def end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()
