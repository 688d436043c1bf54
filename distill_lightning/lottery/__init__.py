"""Lottery tickets: rounds, rates, rewinding, tickets, networks without their zeros. The callback is ``callbacks.lottery``."""
