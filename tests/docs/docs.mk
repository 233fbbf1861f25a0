# Links, contents lists, paths and quoted messages of the documentation.
SUITES += docs
test-docs:                    ## every link and anchor of the pages, every path that pages and comments name, the messages that README quotes
	@tests/run-suite docs tests/docs/run
.PHONY: test-docs
