"""The embedded cloud: AWS, Fargate, Lambda and EventBridge on one laptop, from real parts.

It stands beside the product, never inside it: nothing in `chalicelib/` may import it.
"""
