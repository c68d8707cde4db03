"""Guards: why a rerun may go to FARGATE earlier than its budget says. Pure, one module each.

`facts.py` holds what they judge by, gathered once per interruption by `functions/policy_facts.py`;
`advice.py` asks those that are on. Off unless set, none of them can keep a run on Spot.
"""
