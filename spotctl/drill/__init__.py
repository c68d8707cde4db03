"""`spotctl drill`: interrupts one running Spot task for real, and watches whether its run is rerun.

`run.py` is the whole of it: `target.py` chooses or starts what is interrupted, `watch.py` polls and
shows the progress, `timeline.py` judges it, without I/O.
"""
