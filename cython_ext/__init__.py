"""The RKLLM binding and the runtimes built beside it."""
