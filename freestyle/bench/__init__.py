"""The research bench: a matrix of experiments, resumable cell by cell, under one protocol."""
