"""What decides beside a fixed budget: the expected cost (`auto`) and the deadline tag."""
