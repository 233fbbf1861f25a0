# Structured output: answers against Python's jsonschema and re, and the same bits in every layout.
SUITES   += structured
PACKAGES += packages-structured
test-structured: all ## structured output against Python's jsonschema (STRUCTURED_SEED=7 for other schemas)
	@OMP_NUM_THREADS=1 tests/run-suite structured tests/structured/run $(BUILD)/moerun $(XGRAMMAR)
.PHONY: test-structured
