"""A request from its admission to its end: queue, dispatch, recovery, quarantine, answers kept."""
