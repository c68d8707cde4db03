"""What writes and checks the documentation: the settings page, the costs, the built site."""
