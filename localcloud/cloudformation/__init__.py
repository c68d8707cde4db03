"""CloudFormation on the laptop, in place of moto's; `requests.py` is where requests come in."""
