"""The block modes: blocks are reused while they hardly change. "paper" is BWCache as published, "per block" its variant.

Source: Cui et al., arXiv:2509.13789v3. Read in this order: similarity, measurement, rules, whole_stack, per_block, stream,
model_pass, run.
"""
