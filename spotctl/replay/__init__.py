"""`replay`: the recorded history, decided again under another budget.

Reads bills and run records from the stack's table, and writes nothing. `history.py` joins them,
`again.py` plays the runs, `figures.py` adds up.
"""
