"""What runs inside the grader's sandbox sessions. Standard library only: the sources are sent there as text."""
