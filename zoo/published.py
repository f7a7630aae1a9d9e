"""Curves that others measured on real weights: ratio of the size of what all blocks add, from step to step.

Source: Zehong-Ma/MagCache at commit df81cb1, MagCache4Wan2.1/magcache_generate.py (line 912) and
MagCache4HunyuanVideo/magcache_sample_video.py (line 316): mean over tokens of |r_t| / |r_(t-1)|, r = tokens after all
blocks - tokens before, one prompt, 50 steps, of the pass with the prompt. `zoo/curves.py` computes the same on a zoo model.
"""

WAN_1_3B = (  # unipc, shift 5, cfg 5, 480p
    1.0124, 1.00166, 0.99791, 0.99682, 0.99634, 0.99567, 0.99416, 0.99578, 0.9957, 0.99511, 0.99535, 0.99552,
    0.99541, 0.9954, 0.99489, 0.99518, 0.99484, 0.99481, 0.99415, 0.99419, 0.99396, 0.99388, 0.99349, 0.99309,
    0.9927, 0.99228, 0.99171, 0.99137, 0.99068, 0.99005, 0.98944, 0.98849, 0.98758, 0.98644, 0.98504, 0.9836,
    0.98202, 0.97977, 0.97717, 0.9741, 0.97003, 0.96538, 0.9593, 0.95086, 0.94013, 0.92402, 0.90241, 0.86821,
    0.81838,
)  # fmt: skip
HUNYUAN_720P = (  # euler, shift 7, embedded guidance 6
    1.0754, 1.27807, 1.11596, 1.09504, 1.05188, 1.00844, 1.05779, 1.00657, 1.04142, 1.03101, 1.00679, 1.02556,
    1.00908, 1.06949, 1.05438, 1.02214, 1.02321, 1.03019, 1.00779, 1.03381, 1.01886, 1.01161, 1.02968, 1.00544,
    1.02822, 1.00689, 1.02119, 1.0105, 1.01044, 1.01572, 1.02972, 1.0094, 1.02368, 1.0226, 0.98965, 1.01588,
    1.02146, 1.0018, 1.01687, 0.99436, 1.00283, 1.01139, 0.97122, 0.98251, 0.94513, 0.97656, 0.90943, 0.85703,
    0.75456,
)  # fmt: skip
