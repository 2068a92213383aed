"""What things cost, measured beside a limit or a peer in the same run. See README.md."""
