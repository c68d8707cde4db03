"""What can move a run to FARGATE before its budget is spent: economics and the deadline tag."""
