"""Where a model runs: a host of our own that needs torch alone, or a real ComfyUI in this process."""
