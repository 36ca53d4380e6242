"""Conversations: their histories, which the supervisor holds, and where a worker still has one in its KV cache."""
