"""What a task cost, what Spot saved, and what had to be done again."""
