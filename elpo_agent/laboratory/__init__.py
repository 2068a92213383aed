"""The exact laboratory: the algorithms, run on tasks whose values, gradients and fatal steps are known exactly."""
