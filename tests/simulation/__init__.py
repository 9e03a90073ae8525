"""The real machines in a simulated world: seeded, repeatable, thousands of times."""
