# The real program is killed, stopped and robbed of its disk, again and again, until it has finished.
SUITES   += faults-short
PACKAGES += packages-golden
FAULTS := tests/faults/run $(BUILD)/moerun $(if $(SEED),--seed $(SEED))

test-faults: all ## KILLS=200 kills at random moments (SEED=), each followed by the same command; STOP and KILL of each rank; bad disks
	@tests/run-suite faults $(FAULTS) --long --kills $(or $(KILLS),200)

test-faults-short: all ## a dozen of them
	@tests/run-suite faults-short $(FAULTS) --kills 12
.PHONY: test-faults test-faults-short
