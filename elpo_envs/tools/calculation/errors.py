"""What the model is told."""


class CalculationError(ValueError):
    """What was asked cannot be computed; the message is for the model."""
