"""Trained models of a few megabytes, each with its data, training and card: what claims about quality are measured on."""
