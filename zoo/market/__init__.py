"""Market: a model of HunyuanVideo's architecture of fruit and flowers over places, with embedded guidance."""
