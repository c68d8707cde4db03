"""One interrupted run: what is known of it, what to do about it, and what to say of it."""
