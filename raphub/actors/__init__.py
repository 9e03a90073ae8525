"""Doing, and nothing else: each machine of the core is driven by one thin actor here."""
