# The measuring of jobs/eight-gpus.sh, tried on two CPU ranks.
SUITES   += eight-gpus
PACKAGES += packages-golden
test-eight-gpus: all $(BUILD)/tests/exchange_bench ## jobs/eight-gpus.sh on two CPU ranks: its five parts, what fails, what runs out of time
	@tests/run-suite eight-gpus tests/eight-gpus/run $(BUILD)/moerun
.PHONY: test-eight-gpus
