"""`replay`: the recorded history, decided again under other settings.

Reads bills and run records from the stack's table, and writes nothing. `history.py` joins them,
`answer.py` asks the product's own `decide`, `again.py` plays the runs, `figures.py` adds up.
"""
