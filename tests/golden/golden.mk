# Answers against Hugging Face transformers, and the same bits in every layout.
SUITES += golden
PACKAGES += packages-golden
test-golden: all ## answers against transformers', and the same bits in twelve layouts
	@OMP_NUM_THREADS=1 tests/run-suite golden tests/golden/run $(BUILD)/moerun
.PHONY: test-golden
