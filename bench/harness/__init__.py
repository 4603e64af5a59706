"""Runs tokenbus and its peers one after the other against one simulated engine, and compares them."""
