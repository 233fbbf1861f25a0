# The Python package that turns tables into inputs and answers into tables, from its wheel in a fresh virtual environment.
SUITES   += moerun-io
PACKAGES += packages-python
test-moerun-io: all           ## python/moerun_io: tables in, answers back, bad tables; 10 million rows: MOERUN_IO_ROWS=10000000
	@tests/run-suite moerun-io tests/moerun_io/run $(BUILD)
.PHONY: test-moerun-io
