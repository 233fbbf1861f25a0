"""lm-evaluation-harness scores models with moerun. Light: a start-up file of the virtual environment imports it (register.py)."""
