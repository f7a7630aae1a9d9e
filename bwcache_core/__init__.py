"""Block-wise caching of diffusion transformer features: the algorithm, free of any host.

Source: Cui et al., "BWCache", arXiv:2509.13789v3. Needs torch and the standard library, nothing of ComfyUI.
Read in this order: config, similarity, forecast, policy, stream, session, report.
"""
