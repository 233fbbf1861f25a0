# What runs vLLM beside moerun, against a stand-in for vLLM.
SUITES += peer
test-peer: all                ## tests/bench/peer against a stand-in for vLLM: both do the same work, a peer that does less is refused
	@tests/run-suite peer tests/peer/run $(BUILD)/moerun
.PHONY: test-peer
