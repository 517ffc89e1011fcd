"""Experiments: arms at equal data and compute, their results, a table and plots."""
