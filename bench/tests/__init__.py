"""Tests of what the harness decides: python3 -m unittest discover -s bench -t bench."""
