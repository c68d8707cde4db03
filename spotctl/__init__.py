"""The operator's side: what a person starts by hand, with their own credentials. Not shipped."""
