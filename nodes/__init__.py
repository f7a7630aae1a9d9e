"""The ComfyUI side of BWCache. Nothing is imported here: see extension.py for the list of nodes."""
