"""prefect-spot's Lambdas: reruns Prefect flow runs that Fargate Spot interrupted."""
