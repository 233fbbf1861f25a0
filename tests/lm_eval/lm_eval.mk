# The Python package by which lm-evaluation-harness scores with moerun, from its wheel, against lm-eval's own `hf` backend's figures.
SUITES   += lm-eval-quick
PACKAGES += packages-python
test-lm-eval-quick: all ## python/moerun_lm_eval: the figures of lm-eval's hf backend, kills, bad input
	@tests/run-suite lm-eval-quick tests/lm_eval/run $(BUILD) quick
test-lm-eval: all       ## the same, and in Slurm, and the example of docs/evaluation.md in a fresh virtual environment
	@.ci/setup packages-python packages-slurm
	@tests/run-suite lm-eval tests/lm_eval/run $(BUILD) all
.PHONY: test-lm-eval-quick test-lm-eval
