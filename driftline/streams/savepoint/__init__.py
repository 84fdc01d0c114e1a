"""Savepoints: the committed state of every task in one file, and what tells of that state from outside."""
