"""`spotctl drill`: interrupts one running Spot task for real, and watches whether its run returns.

`target.py` chooses what may be touched, `watch.py` asks again and again how far it has come, and
`timeline.py` judges that, without I/O.
"""
