# output.routed_experts: what transformers' routers choose, whatever the layout and whatever became of a sequence.
SUITES += routed
test-routed: all            ## output.routed_experts: ids of transformers' routers, twelve layouts, preempted, shared, killed and resumed
	@tests/run-suite routed tests/routed/run $(BUILD)/moerun
.PHONY: test-routed
