"""TinyWan: a trained video diffusion model of a few megabytes in the Wan 2.1 key format, for tests and figures."""
