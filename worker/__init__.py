"""The worker process: one RKLLM model behind one ZeroMQ socket."""
