"""What each worker's memory does: samples, the estimate of a leak, whose it is, and what is done about it."""
