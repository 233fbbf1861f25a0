# Files written for OpenAI's Batch API: their answers against OpenAI's own package and schema; watching a job from outside.
SUITES   += openai
PACKAGES += packages-golden packages-python packages-openai
test-openai: all              ## OpenAI batch files: answers by schema and by the openai package's types; moerun status, results, report.prometheus
	@tests/run-suite openai tests/openai/run $(BUILD)/moerun
.PHONY: test-openai
