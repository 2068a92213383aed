"""Inference engines behind the `Policy` seam. Import the one you need; each needs its own packages."""
