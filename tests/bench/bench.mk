# Benchmarks of parts; not in SUITES.
STORE_BENCH_OBJ := $(call obj,tests/bench/store_bench.cpp)
$(BUILD)/tests/store_bench: $(STORE_BENCH_OBJ) $(HOST_OBJ)
	@mkdir -p $(@D)
	@echo "  LINK  $@"
	@$(CXX) $(LDFLAGS) $^ $(LIBS) -o $@

bench-store: $(BUILD)/tests/store_bench ## the result store: 1 million rows sealed, resumed, merged; time and memory
	@$< 1000000 32 $(BUILD)
.PHONY: bench-store
-include $(patsubst %.o,%.d,$(STORE_BENCH_OBJ))
