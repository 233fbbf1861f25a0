# Ranks of a job that only steps are killed, stopped, hung and signalled.
SUITES += watchdog
WATCHDOG_OBJ := $(call obj,tests/watchdog/ranks.cpp)
$(BUILD)/tests/watchdog: $(WATCHDOG_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@

test-watchdog: $(BUILD)/tests/watchdog ## ranks that die, stop, hang or throw end the job, and are named
	@tests/run-suite watchdog tests/watchdog/run $<
.PHONY: test-watchdog
-include $(WATCHDOG_OBJ:.o=.d)
