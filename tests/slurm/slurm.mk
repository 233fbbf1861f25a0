# The project's Slurm scripts in a real Slurm, with the CPU device.
SUITES   += slurm
PACKAGES += packages-slurm

test-slurm: all ## the Slurm scripts in a Slurm of this machine's own: limits, requeue, preemption, a dead rank
	@tests/run-suite slurm tests/slurm/run $(BUILD)/moerun
.PHONY: test-slurm
