"""A configuration tried on rows of the past: what it would have said, and what it would have found of changes put into them.

Pure functions over an observations topic in memory; `driftline/cli/backtest.py` reads the file and prints the report.
"""
