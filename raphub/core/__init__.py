"""Decisions, and nothing else: no Ray, no clock, no randomness, no I/O.

Each machine is fed events and the time, and answers with actions.
"""
