# What `make install` and `make bundle` leave runs from elsewhere.
SUITES += packaging
test-packaging: bundle        ## the installed program and the moved bundle run, with the bundle's own libraries
	@rm -rf $(BUILD)/installed
	@$(MAKE) --no-print-directory install DESTDIR=$(abspath $(BUILD)/installed) PREFIX=/usr >/dev/null
	@OMP_NUM_THREADS=1 tests/run-suite packaging tests/packaging/run $(BUILD)
.PHONY: test-packaging
