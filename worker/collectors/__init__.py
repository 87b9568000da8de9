"""Collectors at work: their loop, their calls, and what makes attempts of them."""
