# FP8 checkpoints: `moerun quantize`, the arithmetic against an emulation, and the same bits in every layout.
SUITES += fp8
PACKAGES += packages-golden
test-fp8: all ## moerun quantize, FP8 arithmetic against an emulation, and the same bits in twelve layouts
	@OMP_NUM_THREADS=1 tests/run-suite fp8 tests/fp8/run $(BUILD)/moerun
.PHONY: test-fp8
