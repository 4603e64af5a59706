"""Placement with real engines: conversations through two gateways to three llama.cpp workers."""
