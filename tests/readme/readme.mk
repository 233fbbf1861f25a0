# README's first job, command by command, in a fresh folder with the small model.
SUITES   += readme
PACKAGES += packages-golden
test-readme: all ## the commands of "A real job" in README, as they stand there, with the small model in the large one's place
	@OMP_NUM_THREADS=1 tests/run-suite readme tests/readme/run $(BUILD)/moerun
.PHONY: test-readme
