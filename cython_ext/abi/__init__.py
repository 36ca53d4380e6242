"""What the RKLLM C ABI looks like, family by family: ``layouts.json`` and the headers rendered from it."""
