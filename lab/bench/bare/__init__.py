"""What the product is compared with: functions that do nothing but what cannot be spared."""
