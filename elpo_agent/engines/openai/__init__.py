"""Models behind an OpenAI-compatible endpoint, for evaluation."""
