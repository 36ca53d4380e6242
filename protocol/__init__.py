"""What travels between clients, rkvisord and worker processes: messages, errors, limits.  Pure."""
