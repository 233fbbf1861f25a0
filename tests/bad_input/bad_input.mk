# Jobs and inputs that must be refused: exit code 2, every fault named with its place, nothing left on disk.
SUITES += bad_input
test-bad_input: all ## malformed jobs and inputs are refused, all faults at once, with file and line
	@tests/run-suite bad_input tests/bad_input/run $(BUILD)/moerun
.PHONY: test-bad_input
