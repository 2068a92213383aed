"""Sampling with vLLM inside the trainer's process."""
