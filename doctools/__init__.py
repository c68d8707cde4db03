"""What writes and checks the documentation: the settings page, the diagrams, the built site."""
