# What prompts have in common is computed once, however many groups there are: counts of tokens, on the null device.
SUITES += prefixes
test-prefixes: all            ## every common beginning is computed once: evaluation-shaped inputs, 1, 4 and 8 groups, null device
	@tests/run-suite prefixes tests/prefixes/run $(BUILD)/moerun
.PHONY: test-prefixes
