"""What is to be provisioned, what there is, and the plan from one to the other."""
