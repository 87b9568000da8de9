"""The proof that nothing is lost: real processes, faults at random, and a ledger that must add up.

``python -m tests.chaos --help`` and docs/chaos.md say how to run it.
"""
