# Jobs over several nodes: network namespaces of this machine, joined by a bridge.
SUITES   += nodes
PACKAGES += packages-nodes

test-nodes: all $(BUILD)/tests/mpi ## jobs over two and four nodes made of network namespaces; one vanishes
	@tests/run-suite nodes tests/nodes/run $(BUILD)/moerun $(BUILD)/tests/mpi
.PHONY: test-nodes
