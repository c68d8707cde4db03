"""What to do about a stopped task: pure functions over values. No I/O, clock or logging."""
