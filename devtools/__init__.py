"""Parts of dev.py. Those of dev.py itself need the standard library only: they run before anything is installed."""
