"""Lottery tickets: rounds, rates, rewinding, ticket files, packed networks. The callback is ``callbacks.lottery``."""
