"""``state.db``: what outlives rkvisord."""
