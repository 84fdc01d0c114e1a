"""Detect: observations in, drift events and snapshots out."""
