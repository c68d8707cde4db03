"""The nouns: an ECS task, a flow run, its record, the user's policy, prices."""
