"""Learning from credited token rows: log-probabilities, packing, precision, and the update itself."""
